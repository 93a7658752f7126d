//! When to give up on a plugin: counts faults in a row and opens when there are too many.

/// Faults in a row (each after a rebuild) that open the breaker: one bad batch and one unlucky restart must not, a
/// plugin that fails every time should within seconds.
pub const DEFAULT_MAX_IN_A_ROW: u32 = 5;

/// Pure counter; its owner decides what an open breaker means.
#[derive(Clone, Debug)]
pub struct Breaker {
    max_in_a_row: u32,
    in_a_row: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::new(DEFAULT_MAX_IN_A_ROW)
    }
}

impl Breaker {
    /// Opens at `max_in_a_row` faults in a row (at least one).
    pub fn new(max_in_a_row: u32) -> Self {
        Breaker { max_in_a_row: max_in_a_row.max(1), in_a_row: 0 }
    }

    /// A call ended well: the row is broken. An open breaker stays open.
    pub fn succeeded(&mut self) {
        if !self.is_open() {
            self.in_a_row = 0;
        }
    }

    /// A call ended in a fault; returns whether the breaker is open now.
    pub fn faulted(&mut self) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.is_open()
    }

    /// Whether to stop calling the plugin.
    fn is_open(&self) -> bool {
        self.in_a_row >= self.max_in_a_row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_faults_in_a_row_and_stays_open() {
        let mut b = Breaker::new(3);
        assert!(!b.faulted());
        assert!(!b.faulted());
        b.succeeded();
        assert!(!b.faulted());
        assert!(!b.faulted());
        assert!(b.faulted());
        b.succeeded();
        assert!(b.faulted());
    }
}
