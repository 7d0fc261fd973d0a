//! Which of the host's addresses the world can reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// This host's addresses, from the kernel's tables `/proc/net/fib_trie` (IPv4) and `/proc/net/if_inet6`.
pub fn local_addresses(fib_trie: &str, if_inet6: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["|--", address] => last = address.parse().ok(),
            ["/32", "host", "LOCAL"] => found.extend(last.map(IpAddr::V4)),
            _ => {}
        }
    }
    for line in if_inet6.lines() {
        let digits = line.split_whitespace().next().unwrap_or("");
        if let (32, Ok(bits)) = (digits.len(), u128::from_str_radix(digits, 16)) {
            found.push(IpAddr::V6(Ipv6Addr::from(bits)));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The first address at which anybody in the internet might find what listens at `host`, which is a name, an address, or `*` for
/// all of this host's.
pub fn world_address(host: &str, own: &[IpAddr]) -> Option<IpAddr> {
    let named: Option<IpAddr> = host.parse().ok();
    match named {
        Some(address) if !address.is_unspecified() => Some(address).filter(|address| is_public(*address)),
        None if host != "*" => None,
        _ => own.iter().copied().find(|address| is_public(*address)),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let inner = address.is_loopback() || address.is_private() || address.is_link_local() || shared;
            !inner && !address.is_unspecified() && !address.is_documentation() && !address.is_multicast()
        }
        // Of all that is assigned, only 2000::/3 is routed everywhere.
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIE: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 93.184.216.34\n        \
                        /32 host LOCAL\n     |-- 10.0.0.0\n        /24 link UNICAST\n     |-- 10.0.0.7\n        /32 host LOCAL\n";

    #[test]
    fn addresses_are_read_from_the_kernels_tables() {
        let own = local_addresses(TRIE, "fe80000000000000000000000000abcd 02 40 20 80     eth0\nbad line\n");
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        assert_eq!(own, ["10.0.0.7", "93.184.216.34", "fe80::abcd"]);
    }

    #[test]
    fn only_what_the_world_can_reach_is_told() {
        let own = local_addresses(TRIE, "");
        assert_eq!(world_address("*", &own), Some("93.184.216.34".parse().unwrap()));
        assert_eq!(world_address("0.0.0.0", &own), world_address("*", &own));
        assert_eq!(world_address("127.0.0.1", &own), None);
        assert_eq!(world_address("10.0.0.7", &own), None);
        assert_eq!(world_address("*", &["100.64.1.1".parse().unwrap()]), None);
        assert_eq!(world_address("2600::1", &[]), Some("2600::1".parse().unwrap()));
        assert_eq!(world_address("a.name", &own), None, "who knows");
    }
}
