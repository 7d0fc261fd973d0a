//! Randomness, as it is passed in.

/// Where random bytes come from: the operating system in the daemon, a seed in the simulator.
pub trait Entropy: Send {
    /// Fill `out` with bytes that nobody can predict (in the simulator: that the seed decides).
    fn fill(&mut self, out: &mut [u8]);

    /// A random number.
    fn next_u64(&mut self) -> u64 {
        let mut b = [0; 8];
        self.fill(&mut b);
        u64::from_le_bytes(b)
    }
}
