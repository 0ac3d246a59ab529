//! What a stripe has done, counted under its lock.

use std::ops::AddAssign;

macro_rules! counts {
    ($($name:ident)*) => {
        /// Sums since the cache was opened. The names are those of [`Stats`](crate::Stats).
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: u64,)*
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    inserts removes loads_overtaken
    evictions clean_evictions refused expired shed too_large unspillable write_failures read_failures
    reclaimed spills write_behinds reinsertions reinserted_bytes_written
}
