//! A bounded number of places for callers of whom nothing is known but their address.
//!
//! INVARIANT: who comes while all places are taken gets one all the same, or soon: the oldest one of the address that has
//! most has to go. So many addresses as there are places are needed to keep one caller out, and one address never keeps out
//! another. Who comes from that address itself waits for those that came just before: a crowd behind one address must not
//! throw itself out for ever.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// How long who takes no more than a fair share may keep a place while others wait for one. Without it a crowd that comes
/// back at once, each once, would throw each other out, and nobody would get anywhere.
const GRACE: Duration = Duration::from_secs(1);
/// An address that has more than this part of the places has more than its share.
const SHARES: usize = 16;

/// Places, and what ends who has one when it is dropped.
#[derive(Debug)]
pub(super) struct Places<H> {
    most: usize,
    next: u64,
    /// The oldest first.
    taken: BTreeMap<u64, Place<H>>,
    by_address: HashMap<IpAddr, usize>,
}

/// What became of who came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// It has a place, and who was at this address had to go for it.
    In(PlaceId, Option<IpAddr>),
    /// Its own address has most places, and took them just now.
    Full,
}

/// A place that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PlaceId(u64);

#[derive(Debug)]
struct Place<H> {
    from: IpAddr,
    since: Instant,
    _handle: H,
}

// === impl Places ===

impl<H> Places<H> {
    /// So many, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), next: 0, taken: BTreeMap::new(), by_address: HashMap::new() }
    }

    /// When there will be a place for the next one: `None` for now.
    pub(super) fn room_at(&self, now: Instant) -> Option<Instant> {
        if self.taken.len() < self.most {
            return None;
        }
        let (id, count) = self.victim(None)?;
        if count > self.most / SHARES {
            return None;
        }
        let until = self.taken.get(&id)?.since + GRACE;
        (until > now).then_some(until)
    }

    /// Takes a place, if it may be.
    pub(super) fn enter(&mut self, from: IpAddr, now: Instant, handle: H) -> Entered {
        let mut evicted = None;
        if self.taken.len() >= self.most
            && let Some((victim, _)) = self.victim(Some(from))
        {
            let is_new = |place: &Place<H>| place.from == from && now < place.since + GRACE;
            if self.taken.get(&victim).is_some_and(is_new) {
                return Entered::Full;
            }
            evicted = self.remove(victim);
        }
        let id = self.next;
        self.next += 1;
        self.taken.insert(id, Place { from, since: now, _handle: handle });
        *self.by_address.entry(from).or_default() += 1;
        Entered::In(PlaceId(id), evicted)
    }

    /// Gives a place back. Nothing happens if it is not taken any more.
    pub(super) fn leave(&mut self, place: PlaceId) {
        self.remove(place.0);
    }

    fn remove(&mut self, id: u64) -> Option<IpAddr> {
        let place = self.taken.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&place.from) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&place.from);
            }
        }
        Some(place.from)
    }

    /// The oldest of the address that has most, and how many it has; `newcomer` counts as if it had come already.
    fn victim(&self, newcomer: Option<IpAddr>) -> Option<(u64, usize)> {
        let count_of = |from: IpAddr| {
            let count = self.by_address.get(&from).copied().unwrap_or(0);
            count + usize::from(newcomer == Some(from))
        };
        let most = self.by_address.keys().map(|from| count_of(*from)).max()?;
        let oldest = self.taken.iter().find(|(_, place)| count_of(place.from) == most)?;
        Some((*oldest.0, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Who has places, by address.
    fn taken(places: &Places<()>) -> Vec<(u8, usize)> {
        let last = |from: &IpAddr| from.to_string().rsplit('.').next().unwrap().parse().unwrap();
        let mut taken: Vec<_> = places.by_address.iter().map(|(from, count)| (last(from), *count)).collect();
        taken.sort_unstable();
        assert_eq!(taken.iter().map(|(_, count)| count).sum::<usize>(), places.taken.len());
        taken
    }

    #[test]
    fn addresses_that_take_everything_make_room_for_others() {
        let now = Instant::now();
        let mut places = Places::new(64);
        for _ in 0..200 {
            for greedy in 1..=4 {
                assert_eq!(places.room_at(now), None);
                places.enter(address(greedy), now, ());
            }
        }
        assert_eq!(taken(&places), [(1, 16), (2, 16), (3, 16), (4, 16)]);
        for other in 10..40 {
            assert_eq!(places.room_at(now), None, "{other}: at once");
            let Entered::In(_, Some(evicted)) = places.enter(address(other), now, ()) else {
                panic!("{other}")
            };
            assert!((1..=4).any(|greedy| evicted == address(greedy)));
        }
        assert_eq!(taken(&places).iter().filter(|(from, count)| *from >= 10 && *count == 1).count(), 30);
    }

    #[test]
    fn who_comes_again_and_again_throws_out_nobody_but_itself() {
        let now = Instant::now();
        let mut places = Places::new(4);
        for from in 1..=3 {
            places.enter(address(from), now, ());
        }
        let Entered::In(first, None) = places.enter(address(9), now, ()) else { panic!("there is room") };
        for _ in 0..10 {
            assert_eq!(places.enter(address(9), now, ()), Entered::Full);
        }
        // Those that came first get on; who says nothing makes room.
        assert!(places.taken.contains_key(&first.0));
        let later = places.enter(address(9), now + GRACE, ());
        assert!(matches!(later, Entered::In(_, Some(evicted)) if evicted == address(9)), "{later:?}");
        assert_eq!(taken(&places), [(1, 1), (2, 1), (3, 1), (9, 1)]);
    }

    #[test]
    fn a_crowd_of_which_each_comes_once_waits_and_then_the_oldest_goes() {
        let now = Instant::now();
        let mut places = Places::new(32);
        for from in 0..32 {
            assert_eq!(places.room_at(now), None);
            places.enter(address(from), now + Duration::from_millis(from.into()), ());
        }
        assert_eq!(places.room_at(now), Some(now + GRACE));
        let later = now + GRACE;
        assert_eq!(places.room_at(later), None);
        let Entered::In(place, Some(evicted)) = places.enter(address(100), later, ()) else { panic!() };
        assert_eq!(evicted, address(0));
        assert_eq!(places.room_at(later), Some(later + Duration::from_millis(1)));
        places.leave(place);
        assert_eq!(places.room_at(later), None);
        places.leave(place);
        assert_eq!(places.taken.len(), 31, "who left twice left once");
    }

    #[test]
    fn who_has_to_go_is_told() {
        let now = Instant::now();
        let mut places = Places::new(1);
        let (sender, mut receiver) = tokio::sync::oneshot::channel::<()>();
        let Entered::In(first, None) = places.enter(address(1), now, sender) else { panic!() };
        let entered = places.enter(address(2), now, tokio::sync::oneshot::channel().0);
        assert!(matches!(entered, Entered::In(_, Some(evicted)) if evicted == address(1)));
        assert!(matches!(receiver.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)));
        places.leave(first);
        assert_eq!(places.taken.len(), 1);
    }
}
