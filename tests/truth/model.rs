//! The cache against a map: it may forget, it may not lie, through every operation and any
//! number of reopens.

use crate::common::{
    cases,
    model::{Demands, Run, TestDisk},
    ops::Op,
    tiny,
};
use embercache::{KIB, MIB};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any, proptest},
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(96) as u32,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    })]

    /// Eight entries of RAM and a megabyte of disk: every sequence evicts, spills, promotes and
    /// reclaims.
    #[test]
    fn may_forget_but_never_lies(ops in vec(op(), 1..300)) {
        let demands = Demands { too_large_bytes: 9 << 20, ..Demands::TRUTH };
        run(Run::new(TestDisk::files(), demands, |disk| tiny(&disk.dir()).ram_entries(8).stripes(2)), &ops);
    }

    /// Room for everything, so nothing small may be missing, neither at once nor after a reopen.
    #[test]
    fn forgets_nothing_that_fits(ops in vec(op(), 1..200)) {
        let demands = Demands { keeps_all: true, too_large_bytes: 9 << 20, ..Demands::TRUTH };
        let ample = |disk: &TestDisk| tiny(&disk.dir()).ram(8 * MIB).disk(16 * MIB).segment_size(64 * KIB);
        run(Run::new(TestDisk::files(), demands, ample), &ops);
    }
}

/// Through the bytes, as the fuzzer has them.
fn op() -> impl Strategy<Value = Op> {
    any::<[u8; Op::BYTES]>().prop_map(Op::decode)
}

fn run(mut run: Run, ops: &[Op]) {
    for op in ops {
        run.step(*op);
        run.cache.check();
    }
    run.reopen_by_close();
    run.cache.check();
}
