//! Work on many things at once, where the target has threads.
//!
//! INVARIANT: results are in the order of the things, so that nobody can tell how many threads there were.

/// Fewer things are not worth a thread.
#[cfg(not(target_family = "wasm"))]
const FEW: usize = 8;

/// With fewer things than these, work that is one of many itself gets no threads of its own.
#[cfg(not(target_family = "wasm"))]
const MANY: usize = 8192;

/// What `work` makes of each.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn map<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_owned(things.iter().collect(), work)
}

/// What `work` makes of each. What it does with a thing includes dropping it, which takes as long as making it.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn map_owned<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    use std::sync::{Mutex, PoisonError};

    let count = things.len();
    if count < FEW {
        return things.into_iter().map(work).collect();
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if threads < 2 {
        return things.into_iter().map(work).collect();
    }
    // Small pieces, so that all threads end at about the same time.
    let size = count.div_ceil(threads.saturating_mul(16)).max(1);
    let mut things = things.into_iter();
    let pieces: Vec<Vec<T>> = std::iter::from_fn(|| Some(things.by_ref().take(size).collect()))
        .take_while(|piece: &Vec<T>| !piece.is_empty())
        .collect();
    let next = Mutex::new(pieces.into_iter().enumerate());
    let take = || {
        let mut made = Vec::new();
        loop {
            let Some((at, piece)) = next.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                return made;
            };
            made.push((at, piece.into_iter().map(&work).collect::<Vec<R>>()));
        }
    };
    let mut pieces = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut pieces = take();
        for other in others {
            match other.join() {
                Ok(made) => pieces.extend(made),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        pieces
    });
    pieces.sort_by_key(|(at, _)| *at);
    let mut all = Vec::with_capacity(count);
    pieces.into_iter().for_each(|(_, made)| all.extend(made));
    all
}

/// What `work` makes of each.
#[cfg(target_family = "wasm")]
pub(crate) fn map<T, R>(things: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    things.iter().map(work).collect()
}

/// What `work` makes of each.
#[cfg(target_family = "wasm")]
pub(crate) fn map_owned<T, R>(things: Vec<T>, work: impl Fn(T) -> R) -> Vec<R> {
    things.into_iter().map(work).collect()
}

/// What `work` makes of each, where this is a part of work on many things itself: threads only where these are many, too.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn map_within<T: Sync, R: Send>(things: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    map_among(things.len(), things, work)
}

/// The same where these are some of so many.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn map_among<T: Sync, R: Send>(
    many: usize,
    things: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if many < MANY { things.iter().map(work).collect() } else { map(things, work) }
}

/// What `work` makes of each.
#[cfg(target_family = "wasm")]
pub(crate) fn map_within<T, R>(things: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    map(things, work)
}

/// What `work` makes of each.
#[cfg(target_family = "wasm")]
pub(crate) fn map_among<T, R>(_many: usize, things: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    map(things, work)
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_the_order_of_the_things() {
        for count in [0, 1, 7, 8, 9, 100, 4097, super::MANY] {
            let things: Vec<usize> = (0..count).collect();
            assert_eq!(super::map_within(&things, |thing| *thing), things);
            assert_eq!(super::map_owned(things.clone(), |thing| thing), things);
            assert_eq!(
                super::map(&things, |thing| thing * 2),
                (0..count).map(|at| at * 2).collect::<Vec<_>>()
            );
        }
    }
}
