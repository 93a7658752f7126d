//! When to give up on a plugin: counts faults in a row and opens, with a message, when there are too many.

use super::fault::PluginFault;

/// Faults in a row (each after a rebuild) that open the breaker: one bad batch and one unlucky restart must not, a
/// plugin that fails every time should within seconds.
pub const DEFAULT_MAX_IN_A_ROW: u32 = 5;

/// Pure counter; its owner decides what an open breaker means and when to close it.
#[derive(Clone, Debug)]
pub struct Breaker {
    max_in_a_row: u32,
    in_a_row: u32,
    total: u64,
    last: Option<PluginFault>,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker::new(DEFAULT_MAX_IN_A_ROW)
    }
}

impl Breaker {
    /// Opens at `max_in_a_row` faults in a row (at least one).
    pub fn new(max_in_a_row: u32) -> Self {
        Breaker { max_in_a_row: max_in_a_row.max(1), in_a_row: 0, total: 0, last: None }
    }

    /// A call ended well: the row is broken. An open breaker stays open.
    pub fn succeeded(&mut self) {
        if !self.is_open() {
            self.in_a_row = 0;
        }
    }

    /// A call ended in a fault; returns whether the breaker is open now.
    pub fn faulted(&mut self, fault: &PluginFault) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.total += 1;
        self.last = Some(fault.clone());
        self.is_open()
    }

    /// Whether to stop calling the plugin.
    pub fn is_open(&self) -> bool {
        self.in_a_row >= self.max_in_a_row
    }

    /// Closes it again, after a person or a new generation intervened.
    pub fn reset(&mut self) {
        self.in_a_row = 0;
    }

    /// Faults in a row, and of all time.
    pub fn counts(&self) -> (u32, u64) {
        (self.in_a_row, self.total)
    }

    /// What to tell the operator about `plugin`; nothing while the breaker is closed.
    pub fn message(&self, plugin: &str) -> Option<String> {
        let last = self.last.as_ref().filter(|_| self.is_open())?;
        Some(format!(
            "plugin {plugin} is stopped after {} faults in a row; the last one: {last}. \
             Fix or replace it and reload; its input waits in the dead-letter store",
            self.in_a_row
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_faults_in_a_row_and_stays_open() {
        let mut b = Breaker::new(3);
        assert!(!b.faulted(&PluginFault::Stack));
        assert!(!b.faulted(&PluginFault::Stack));
        b.succeeded();
        assert!(!b.faulted(&PluginFault::Stack));
        assert!(b.message("x").is_none());
        assert!(!b.faulted(&PluginFault::Stack));
        assert!(b.faulted(&PluginFault::Deadline(5)));
        b.succeeded();
        assert!(b.is_open());
        assert!(b.message("x").unwrap().contains("3 faults in a row; the last one: the plugin did not answer"));
        b.reset();
        assert!(!b.is_open());
        assert_eq!(b.counts(), (0, 5));
    }
}
