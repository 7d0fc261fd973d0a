use super::*;
use warren_storage::MemberRole::{Joining, Observer, Voter};

fn member(id: u8, role: MemberRole) -> Member {
    Member { id, disk: 1, role, peer_addr: format!("h{id}:2888"), client_addr: format!("h{id}:2181") }
}

/// Three voters, and an observer.
fn four() -> Members {
    let servers = vec![member(1, Voter), member(2, Voter), member(3, Voter), member(4, Observer)];
    Members { version: 0x100000003, servers }
}

fn reconfig(joining: Option<&str>, leaving: Option<&str>, new_members: Option<&str>) -> Change {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Change::Reconfig {
        joining: own(joining),
        leaving: own(leaving),
        new_members: own(new_members),
        version: -1,
    }
}

/// What a change makes of [`four`], in short: `1v` for a voter, `4o` for an observer, `2j` for one that joins.
fn shape(asked: &Change) -> Result<String, Refusal> {
    let next = change(&four(), asked)?;
    assert_eq!(next.version, four().version, "who applies it sets the version");
    let letter = |role| match role {
        Voter => 'v',
        Joining => 'j',
        Observer => 'o',
    };
    Ok(next.servers.iter().map(|m| format!("{}{}", m.id, letter(m.role))).collect::<Vec<_>>().join(" "))
}

#[test]
fn a_reconfig_does_what_zookeeper_does() {
    for (joining, leaving, members, expected) in [
        (None, None, None, "1v 2v 3v 4o"),
        (Some(""), Some(""), None, "1v 2v 3v 4o"),
        (Some("server.5=h5:2888:3888;2181"), None, None, "1v 2v 3v 4o 5v"),
        (Some(" server.5 = h5:2888:3888:observer;2181 ,"), Some("1"), None, "2v 3v 4o 5o"),
        // Who is there takes another role, or another place.
        (Some("server.4=h4:2888:3888:participant;2181"), None, None, "1v 2v 3v 4v"),
        (Some("server.3=h3:2888:3888:observer;2181"), None, None, "1v 2v 3o 4o"),
        // First some leave, then some join: at the address that became free, for one.
        (Some("server.9=h1:2888:3888;2181"), Some("1"), None, "2v 3v 4o 9v"),
        (None, Some("200, 3"), None, "1v 2v 4o"),
        (None, Some("3,-7,4"), None, "1v 2v"),
        (
            None,
            None,
            Some("server.1=h1:2888:3888;2181,server.7=h7:2888:3888;2181\nserver.2=h2:2888:3888:observer"),
            "1v 2o 7v",
        ),
        // The list wins over the rest, and the version in it is of the past.
        (Some("x"), Some("y"), Some("server.1=h1:1:2\nserver.2=h2:1:2\nversion=100000000"), "1v 2v"),
    ] {
        let asked = reconfig(joining, leaving, members);
        assert_eq!(shape(&asked).as_deref(), Ok(expected), "{asked:?}");
    }
}

/// The simulator's seed 12760: it came back as the disk that it had lost, whose number others knew for gone.
#[test]
fn who_leaves_and_joins_in_one_request_stays_on_its_disk() {
    let mut now = four();
    now.servers[2].disk = 5;
    for asked in [
        reconfig(Some("server.3=h9:2888:3888;2181"), Some("3"), None),
        reconfig(Some("server.3=h9:2888:3888;2181"), None, None),
        reconfig(None, None, Some("server.1=h1:1:2;3\nserver.2=h2:1:2;3\nserver.3=h9:2888:3888;2181")),
    ] {
        let next = change(&now, &asked).unwrap();
        let moved = next.get(3).unwrap();
        assert_eq!((moved.disk, moved.peer_addr.as_str()), (5, "h9:2888"), "{asked:?}");
    }
}

#[test]
fn a_reconfig_that_cannot_be_is_refused_with_zookeepers_code() {
    let many: Vec<String> = (1..=128).map(|id| format!("server.{id}=h{id}:1:2;3")).collect();
    let (list, ids) = (many.join(","), vec!["1"; 256].join(","));
    for (joining, leaving, members, code, said) in [
        (Some("server.5"), None, None, -8, "not of the form server.N"),
        (Some("server.5=h5:1:2;3=4"), None, None, -8, "not of the form server.N"),
        (Some("server.five=h5:1:2;3"), None, None, -5, "`five` is no server's id"),
        (Some("server.0=h5:1:2;3"), None, None, -8, "ids go from 1 to 255"),
        (Some("server.256=h5:1:2;3"), None, None, -8, "ids go from 1 to 255"),
        (Some("server.5=h5:1:2"), None, None, -8, "no client port"),
        (Some("server.5=h5:1;3"), None, None, -8, "not of the form host:port:port"),
        (Some("server.5=h5:1:1;3"), None, None, -8, "the same port"),
        (Some("server.5=h5:1:2:king;3"), None, None, -8, "unknown role"),
        (Some("server.5=0.0.0.0:1:2;3"), None, None, -8, "no address at which others"),
        (Some("server.5=h5:0:2;3"), None, None, -8, "no address at which others"),
        (Some("server.5=h5:1:70000;3"), None, None, -5, "70000 is not a port"),
        (Some("server.5=h1:2888:3888;9"), None, None, -8, "h1:2888 of server 1 is the address of server 5"),
        (Some("server.5=H5:1:2;h1:2181"), None, None, -8, "h1:2181 of server 1"),
        (Some(&list), None, None, -8, "more than 127 servers"),
        (None, Some("one"), None, -5, "`one` is no server's id"),
        (None, Some(&ids), None, -8, "more than 255"),
        (None, Some("1,2"), None, -8, "1 voters would be left"),
        (None, Some("1,2,3,4"), None, -8, "0 voters would be left"),
        (None, None, Some(""), -8, "0 voters would be left"),
        (None, None, Some("server.1=h1:1:2;3"), -8, "1 voters would be left"),
        (None, None, Some("server.1=h1:1:2:observer;3"), -5, "all observe"),
        (None, None, Some("server.1=h1:1:2\nserver.2=h1:1:2"), -8, "h1:1 of server 1"),
        (None, None, Some("group.1=1:2"), -8, "groups and weights are not known"),
        (None, None, Some("weight.1=1"), -8, "groups and weights are not known"),
        (None, None, Some("tickTime=2000"), -8, "`tickTime` is not server.N"),
        (None, None, Some("server.1=h1:1:2\nversion=x"), -5, "version `x`"),
        (None, None, Some(&list), -8, "127 at most"),
        (None, None, Some("\\u12"), -5, "hex digits"),
    ] {
        let asked = reconfig(joining, leaving, members);
        let refusal = shape(&asked).unwrap_err();
        assert_eq!(refusal.code().wire(), code, "{asked:?}: {refusal}");
        assert!(refusal.to_string().contains(said), "{asked:?}\n  said {refusal}\n  not  {said}");
    }
    let late = Change::Reconfig { joining: None, leaving: None, new_members: None, version: 7 };
    let refusal = shape(&late).unwrap_err();
    assert_eq!(refusal.code(), Code::BadVersion);
    assert!(refusal.to_string().contains("version 100000003"), "{refusal}");
    let now = Change::Reconfig { joining: None, leaving: None, new_members: None, version: four().version };
    assert!(shape(&now).is_ok());
}

fn add(id: u8, peer: &str, client: &str, observer: bool) -> Change {
    Change::Add { id, peer_addr: peer.into(), client_addr: client.into(), observer }
}

#[test]
fn an_operator_changes_one_server_at_a_time() {
    for (asked, expected) in [
        (add(5, "h5:2888", "h5:2181", false), "1v 2v 3v 4o 5j"),
        (add(5, "[::1]:2888", "h5:2181", true), "1v 2v 3v 4o 5o"),
        (Change::Promote { id: 4 }, "1v 2v 3v 4j"),
        (Change::Demote { id: 2 }, "1v 2o 3v 4o"),
        (Change::Remove { id: 1 }, "2v 3v 4o"),
        (Change::Remove { id: 4 }, "1v 2v 3v"),
        (Change::Replace { id: 3 }, "1v 2v 3j 4o"),
        (Change::Replace { id: 4 }, "1v 2v 3v 4o"),
    ] {
        assert_eq!(shape(&asked).as_deref(), Ok(expected), "{asked:?}");
    }
    let replaced = change(&four(), &Change::Replace { id: 3 }).unwrap();
    assert_eq!(replaced.get(3).unwrap().disk, 2);
    // The leader promotes who joins; it keeps its disk.
    let votes = change(&replaced, &Change::Promote { id: 3 }).unwrap();
    assert_eq!(votes.get(3), Some(&Member { disk: 2, ..member(3, Voter) }));
    // A reconfig keeps the disk, too.
    let line = reconfig(Some("server.3=h3:2888:3888;2181"), None, None);
    assert_eq!(change(&replaced, &line).unwrap().get(3).unwrap().disk, 2);
    // Who joins can be sent back.
    assert_eq!(change(&replaced, &Change::Demote { id: 3 }).unwrap().get(3).unwrap().role, Observer);
}

#[test]
fn what_an_operator_must_not_do_is_refused_with_what_to_do() {
    for (asked, said) in [
        (
            add(4, "h5:1", "h5:2", false),
            "server 4 is there already; if it lost its data, `warren member replace 4`",
        ),
        (add(0, "h5:1", "h5:2", false), "ids go from 1 to 255"),
        (add(5, "h5", "h5:2", false), "no port"),
        (add(5, "*:1", "h5:2", false), "no address at which others"),
        (add(5, "h5:1", "0.0.0.0:2", false), "no address at which others"),
        (add(5, "h5:1;2", "h5:2", false), "`h5:1;2` is not an address"),
        (add(5, "H1:2888", "h5:2", false), "h1:2888 of server 1 is the address of server 5"),
        (Change::Promote { id: 1 }, "server 1 votes already"),
        (Change::Promote { id: 9 }, "there is no server 9; `warren member list`"),
        (Change::Demote { id: 4 }, "server 4 observes already"),
        (Change::Demote { id: 9 }, "no server 9"),
        (Change::Remove { id: 9 }, "no server 9"),
        (Change::Replace { id: 9 }, "no server 9"),
    ] {
        let refusal = shape(&asked).unwrap_err();
        assert!(refusal.to_string().contains(said), "{asked:?}\n  said {refusal}\n  not  {said}");
    }
    let alone =
        Members { version: 0, servers: vec![member(1, Voter), member(2, Observer), member(3, Joining)] };
    for asked in [Change::Demote { id: 1 }, Change::Remove { id: 1 }, Change::Replace { id: 1 }] {
        assert_eq!(change(&alone, &asked), Err(Refusal::LastVoter { id: 1 }));
    }
    for gone in [2, 3] {
        assert!(change(&alone, &Change::Remove { id: gone }).is_ok());
    }
    let voters = (1..=31).map(|id| member(id, Voter));
    let full = Members { version: 0, servers: voters.clone().collect() };
    assert_eq!(change(&full, &add(40, "h40:1", "h40:2", false)), Err(Refusal::TooManyVoters { voters: 32 }));
    assert!(change(&full, &add(40, "h40:1", "h40:2", true)).is_ok());
    let full =
        Members { version: 0, servers: voters.chain((32..=127).map(|id| member(id, Observer))).collect() };
    assert_eq!(change(&full, &Change::Promote { id: 32 }), Err(Refusal::TooManyVoters { voters: 32 }));
    assert_eq!(change(&full, &add(140, "h140:1", "h140:2", true)), Err(Refusal::TooMany { servers: 128 }));
    let worn = Member { disk: u32::MAX, ..member(1, Voter) };
    let worn = Members { version: 0, servers: vec![worn, member(2, Voter)] };
    assert!(change(&worn, &Change::Replace { id: 1 }).unwrap_err().to_string().contains("too often"));
}

#[test]
fn the_text_is_what_zookeeper_writes_and_reads() {
    let mut members = four();
    members.servers[2] =
        Member { peer_addr: "[::1]:65000".into(), client_addr: String::new(), ..member(3, Joining) };
    let text = text(&members);
    assert_eq!(
        text,
        "server.1=h1:2888:3888:participant;h1:2181\nserver.2=h2:2888:3888:participant;h2:2181\n\
         server.3=[::1]:65000:64000:observer\nserver.4=h4:2888:3888:observer;h4:2181\nversion=100000003"
    );
    let again = change(&members, &reconfig(None, None, Some(&text))).unwrap();
    assert_eq!(again.get(1), members.get(1));
    assert_eq!(again.get(3).unwrap().peer_addr, "[::1]:65000");
    assert_eq!(super::text(&Members::default()), "version=0");
}

#[test]
fn an_ensemble_is_founded_as_its_file_says() {
    let text = "[ensemble]\nserver_id = 2\ncert = 'c'\nca = 'a'\n\
                [[ensemble.server]]\nid = 3\npeer_addr = 'h3:1'\nclient_addr = 'h3:2'\nrole = 'observer'\n\
                [[ensemble.server]]\nid = 2\npeer_addr = 'h2:1'\nclient_addr = 'h2:2'\n";
    let loaded = config::load(config::FileText::WarrenToml(text), &config::Overrides::default()).unwrap();
    let members = found(&loaded.config.ensemble.unwrap());
    assert_eq!(members.version, 0);
    let of = |id, role, port| Member {
        id,
        disk: 1,
        role,
        peer_addr: format!("h{id}:{port}"),
        client_addr: format!("h{id}:2"),
    };
    assert_eq!(members.servers, [of(2, Voter, 1), of(3, Observer, 1)]);
    assert!(oddities(&members).is_empty());
    assert!(oddities(&change(&four(), &Change::Remove { id: 1 }).unwrap())[0].contains("2 voters need 2"));
}

/// The simulator's seeds 73104 and 76703: a server that was away while another one left and came back on a new disk refused
/// that one, which led by then, and never heard that it was back.
#[test]
fn who_left_and_stands_in_the_file_has_a_link_until_the_table_is_current() {
    let (table, file) =
        (four(), Members { version: 0, servers: (5..=8).map(|id| member(id, Voter)).collect() });
    let retired = BTreeMap::from([(6, 1), (7, 2), (9, 1)]);
    let links = |current| linked(&table, &retired, &[1, 7], &file, current).into_iter().collect::<Vec<u8>>();
    assert_eq!(links(false), [1, 2, 3, 4, 5, 6, 7, 8], "and nobody who stands nowhere");
    assert_eq!(
        links(true),
        [1, 2, 3, 4, 5, 7, 8],
        "who still votes is needed, and who never left may have come"
    );
}

#[test]
fn a_code_tells_what_it_can() {
    for refusal in [Refusal::InProgress, Refusal::NoQuorum, Refusal::Disabled, Refusal::Standalone] {
        assert_eq!(Refusal::of(refusal.code()), refusal);
    }
    assert_eq!(Refusal::of(Code::BadVersion).code(), Code::BadVersion);
}
