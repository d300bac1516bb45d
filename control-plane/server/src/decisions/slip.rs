//! Says what became of entries that are acknowledged only when they are written.
//!
//! INVARIANT: an entry counts as written only if somebody said so: whatever else becomes of its ticket says that it is not.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Goes with an entry.
#[derive(Debug)]
pub struct Ticket {
    position: usize,
    is_written: bool,
    of: Arc<Slip>,
}

/// Of all entries that came together.
#[derive(Debug)]
pub struct Slip {
    unwritten: Mutex<Vec<usize>>,
    done: Mutex<Option<oneshot::Sender<Vec<usize>>>>,
}

/// Waits for all of them.
#[derive(Debug)]
pub struct Written(oneshot::Receiver<Vec<usize>>);

// === impl Slip ===

impl Slip {
    /// For entries that came together.
    pub fn new() -> (Arc<Self>, Written) {
        let (done, written) = oneshot::channel();
        let slip = Self { unwritten: Mutex::default(), done: Mutex::new(Some(done)) };
        (Arc::new(slip), Written(written))
    }

    /// For one of them, which stands here in its batch.
    pub fn ticket(self: &Arc<Self>, position: usize) -> Ticket {
        Ticket { position, is_written: false, of: self.clone() }
    }
}

impl Drop for Slip {
    fn drop(&mut self) {
        let unwritten = std::mem::take(self.unwritten.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Some(done) = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // An error means that nobody waits any more.
            let _ = done.send(unwritten);
        }
    }
}

// === impl Ticket ===

impl Ticket {
    /// Its entry is kept.
    pub fn written(mut self) {
        self.is_written = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_written {
            self.of.unwritten.lock().unwrap_or_else(PoisonError::into_inner).push(self.position);
        }
    }
}

// === impl Written ===

impl Written {
    /// Resolves when it is known of each of them: with the positions of those that are not written.
    pub async fn unwritten(self) -> Vec<usize> {
        // The slip always says.
        self.0.await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_said_to_be_written_is_and_nothing_is_known_before_all_are() {
        let (slip, written) = Slip::new();
        let [first, second, third] = [3, 5, 9].map(|position| slip.ticket(position));
        drop(slip);
        let mut waits = std::pin::pin!(written.unwritten());
        first.written();
        drop(second);
        assert!(futures_util::poll!(&mut waits).is_pending());
        third.written();
        assert_eq!(waits.await, [5]);
    }
}
