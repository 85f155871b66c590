//! Randomness that a printed seed brings back (SplitMix64, Steele et al. 2014).

pub struct Rng(u64);

impl Rng {
    /// From `STEAD_TEST_SEED`, or else from the clock; printed, so that a failure can be repeated.
    pub fn from_env() -> Self {
        let seed = match std::env::var("STEAD_TEST_SEED") {
            Ok(text) => text.parse().expect("STEAD_TEST_SEED is a number"),
            Err(_) => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_nanos() as u64),
        };
        println!("repeat with STEAD_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}
