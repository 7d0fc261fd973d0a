//! Crashes: after any of them the last checkpoint is there, and replaying the log gives the same tree.

use super::*;
use proptest::prelude::*;

/// Entry `index` of a log in which a few paths are created, changed and deleted all the time.
fn entry(tree: &mut Tree, index: u64) {
    let path = format!("/n{}", index * 7 % 13);
    let data = index.to_be_bytes();
    let op = match index % 3 {
        0 => Op::Delete { path: &path, version: -1 },
        1 => create(&path, &data, CreateMode::Persistent),
        _ => Op::SetData { path: &path, data: Some(&data), version: -1 },
    };
    let logged = Logged { tag: None, ids: Vec::new(), command: Command::Single(op) };
    tree.apply(index as i64, &Rules::default(), &logged).unwrap();
    tree.advance(index, 1);
}

fn replay(tree: &mut Tree, to: u64) {
    for index in tree.position().index + 1..=to {
        entry(tree, index);
    }
}

fn reference(to: u64) -> Digest {
    let mut tree = Tree::open(MemoryDisk::default().shared(), options(1 << 20)).unwrap();
    replay(&mut tree, to);
    tree.digest()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn power_loss_keeps_a_checkpoint(
        first in 1..60u64,
        second in 1..60u64,
        third in 0..60u64,
        fails_in in proptest::option::of(0..80u64),
        survivors in any::<u64>(),
    ) {
        let mut told = Told::fresh();
        replay(&mut told.tree, first);
        told.checkpoint();
        replay(&mut told.tree, first + second);
        // The second checkpoint is written, or fails somewhere on the way.
        if let Some(n) = fails_in {
            told.disk.fail_in(n);
        }
        let written = told.tree.freeze().unwrap().write().is_ok();
        let mut bits = survivors;
        let disk = told.disk.after_power_loss(|| {
            bits = bits.rotate_left(1);
            bits & 1 == 1
        });
        let mut tree = Tree::open(disk.shared(), options(1 << 20)).unwrap();
        prop_assert!(tree.position().index == first + second || !written && tree.position().index == first);
        prop_assert_eq!(tree.digest(), reference(tree.position().index));
        prop_assert_eq!(tree.store_id(), 11);
        replay(&mut tree, first + second + third);
        prop_assert_eq!(tree.digest(), reference(first + second + third));
    }
}

#[test]
fn a_failing_disk_is_reported_and_not_hidden() {
    let mut told = Told::fresh();
    replay(&mut told.tree, 20);
    told.disk.fail_in(0);
    assert!(matches!(told.tree.freeze().unwrap().write(), Err(TreeError::Store { .. })));
}
