//! What waits, of many workloads: everybody gets a turn, and what has to go is taken from who has most.
//!
//! INVARIANT: a workload with less than another one never loses anything to make room, neither for that one nor for a third.
//! Of what a workload has, what is worth least goes first.
//!
//! INVARIANT: what is precious is every fourth that is taken at least, as long as there is any: who says of everything that it
//! is required does not keep others' refusals waiting.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// So many that are required are taken before something precious that waits.
const IN_A_ROW: usize = 3;

/// What something is worth, where not everything can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worth {
    /// Nothing is wrong if it is missing, as long as that is told.
    Ordinary,
    /// It should be kept: refusals, differences, gaps, and what a rule wants in full.
    Precious,
    /// Nobody may go on without it.
    Required,
}

/// What waits.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: HashMap<Arc<str>, Lane<T>>,
    /// Whose turn it is, for each worth.
    turns: ByWorth<VecDeque<Arc<str>>>,
    /// How many were taken that are required, since something else was.
    in_a_row: usize,
    by_bytes: BTreeSet<(usize, Arc<str>)>,
    by_ordinary: BTreeSet<(usize, Arc<str>)>,
    total: Amount,
    len: usize,
}

/// Of one workload.
#[derive(Debug)]
struct Lane<T> {
    lines: ByWorth<Line<T>>,
    amount: Amount,
}

#[derive(Debug)]
struct Line<T> {
    waiting: VecDeque<(T, usize)>,
    /// It is somewhere among the turns.
    has_turn: bool,
}

/// Bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    all: usize,
    ordinary: usize,
}

#[derive(Debug, Default)]
struct ByWorth<T> {
    ordinary: T,
    precious: T,
    required: T,
}

/// What had to go.
#[derive(Debug, PartialEq, Eq)]
pub struct Shed<T> {
    /// Whose it was.
    pub workload: Arc<str>,
    /// What it was worth.
    pub worth: Worth,
    /// The thing itself.
    pub item: T,
}

// === impl ByWorth ===

impl<T> ByWorth<T> {
    fn of(&mut self, worth: Worth) -> &mut T {
        match worth {
            Worth::Ordinary => &mut self.ordinary,
            Worth::Precious => &mut self.precious,
            Worth::Required => &mut self.required,
        }
    }
}

// === impl Line ===

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), has_turn: false }
    }
}

// === impl Lane ===

impl<T> Lane<T> {
    fn new() -> Self {
        let lines =
            ByWorth { ordinary: Line::default(), precious: Line::default(), required: Line::default() };
        Self { lines, amount: Amount::default() }
    }

    /// What it has of least worth.
    fn least(&self) -> Option<Worth> {
        let ByWorth { ordinary, precious, required } = &self.lines;
        [(Worth::Ordinary, ordinary), (Worth::Precious, precious), (Worth::Required, required)]
            .into_iter()
            .find_map(|(worth, line)| (!line.waiting.is_empty()).then_some(worth))
    }

    fn is_gone(&self) -> bool {
        let ByWorth { ordinary, precious, required } = &self.lines;
        [ordinary, precious, required].into_iter().all(|line| line.waiting.is_empty() && !line.has_turn)
    }
}

// === impl Lanes ===

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            turns: ByWorth::default(),
            in_a_row: 0,
            by_bytes: BTreeSet::new(),
            by_ordinary: BTreeSet::new(),
            total: Amount::default(),
            len: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all.
    pub fn bytes(&self) -> usize {
        self.total.all
    }

    /// Bytes of what is ordinary.
    pub fn ordinary_bytes(&self) -> usize {
        self.total.ordinary
    }

    /// Whether something may wait that is required.
    pub fn has_required(&self) -> bool {
        !self.turns.required.is_empty()
    }

    /// Adds something of a workload.
    pub fn push(&mut self, workload: &str, worth: Worth, item: T, bytes: usize) {
        let name = match self.lanes.get_key_value(workload) {
            Some((name, _)) => name.clone(),
            None => workload.into(),
        };
        let lane = self.lanes.entry(name.clone()).or_insert_with(Lane::new);
        let line = lane.lines.of(worth);
        line.waiting.push_back((item, bytes));
        if !std::mem::replace(&mut line.has_turn, true) {
            self.turns.of(worth).push_back(name.clone());
        }
        self.len += 1;
        self.change(&name, worth, |amount| amount.saturating_add(bytes));
    }

    /// Takes the next one, if `takes` says so of its bytes: what is worth most first, but for every fourth; of every workload
    /// in turn.
    pub fn pop_if(&mut self, takes: impl FnOnce(usize) -> bool) -> Option<T> {
        let (first, second) = match self.in_a_row >= IN_A_ROW {
            true => (Worth::Precious, Worth::Required),
            false => (Worth::Required, Worth::Precious),
        };
        for worth in [first, second, Worth::Ordinary] {
            while let Some(name) = self.turns.of(worth).pop_front() {
                let Some(lane) = self.lanes.get_mut(&name) else { continue };
                let line = lane.lines.of(worth);
                let Some((_, bytes)) = line.waiting.front() else {
                    // All of it had to go meanwhile.
                    line.has_turn = false;
                    self.forget(&name);
                    continue;
                };
                let bytes = *bytes;
                if !takes(bytes) {
                    self.turns.of(worth).push_front(name);
                    return None;
                }
                let taken = line.waiting.pop_front();
                line.has_turn = !line.waiting.is_empty();
                if line.has_turn {
                    self.turns.of(worth).push_back(name.clone());
                }
                self.len = self.len.saturating_sub(1);
                self.in_a_row = if worth == Worth::Required { self.in_a_row.saturating_add(1) } else { 0 };
                self.change(&name, worth, |amount| amount.saturating_sub(bytes));
                self.forget(&name);
                return taken.map(|(item, _)| item);
            }
        }
        None
    }

    /// Makes room for a newcomer: takes something from who would have most with it. `None`: that is the newcomer's workload,
    /// and it has nothing that is worth less: the newcomer has to go.
    pub fn shed(&mut self, newcomer: &str, worth: Worth, bytes: usize) -> Option<Shed<T>> {
        let own = self.lanes.get(newcomer).map_or(0, |lane| lane.amount.all).saturating_add(bytes);
        let (most, name) = self.by_bytes.last()?;
        let others = (*most > own && &**name != newcomer).then(|| name.clone());
        let (name, least) = match others {
            Some(name) => {
                let least = self.lanes.get(&name)?.least()?;
                (name, least)
            }
            None => {
                let (name, lane) = self.lanes.get_key_value(newcomer)?;
                (name.clone(), lane.least().filter(|least| *least < worth)?)
            }
        };
        self.remove(name, least)
    }

    /// Makes room for something ordinary among what is ordinary. `None`: the newcomer has to go.
    pub fn shed_ordinary(&mut self, newcomer: &str, bytes: usize) -> Option<Shed<T>> {
        let own = self.lanes.get(newcomer).map_or(0, |lane| lane.amount.ordinary).saturating_add(bytes);
        let (most, name) = self.by_ordinary.last()?;
        let name = (*most > own && &**name != newcomer).then(|| name.clone())?;
        self.remove(name, Worth::Ordinary)
    }

    /// Takes something ordinary from who has most of it.
    pub fn shed_most_ordinary(&mut self) -> Option<Shed<T>> {
        let (_, name) = self.by_ordinary.last()?;
        self.remove(name.clone(), Worth::Ordinary)
    }

    /// The oldest of what is ordinary, else the newest: what has waited longer is nearer to where it is to go.
    fn remove(&mut self, name: Arc<str>, worth: Worth) -> Option<Shed<T>> {
        let waiting = &mut self.lanes.get_mut(&name)?.lines.of(worth).waiting;
        let removed = if worth == Worth::Ordinary { waiting.pop_front() } else { waiting.pop_back() };
        let (item, bytes) = removed?;
        self.len = self.len.saturating_sub(1);
        self.change(&name, worth, |amount| amount.saturating_sub(bytes));
        Some(Shed { workload: name, worth, item })
    }

    /// Counts more or less of a workload.
    fn change(&mut self, name: &Arc<str>, worth: Worth, by: impl Fn(usize) -> usize) {
        let Some(lane) = self.lanes.get_mut(name) else { return };
        let before = lane.amount;
        lane.amount.all = by(before.all);
        self.total.all = by(self.total.all);
        replace(&mut self.by_bytes, name, before.all, lane.amount.all);
        if worth == Worth::Ordinary {
            lane.amount.ordinary = by(before.ordinary);
            self.total.ordinary = by(self.total.ordinary);
            replace(&mut self.by_ordinary, name, before.ordinary, lane.amount.ordinary);
        }
    }

    fn forget(&mut self, name: &Arc<str>) {
        if self.lanes.get(name).is_some_and(Lane::is_gone) {
            self.lanes.remove(name);
        }
    }
}

fn replace(order: &mut BTreeSet<(usize, Arc<str>)>, name: &Arc<str>, before: usize, now: usize) {
    order.remove(&(before, name.clone()));
    if now > 0 {
        order.insert((now, name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(lanes: &mut Lanes<u32>) -> Vec<u32> {
        std::iter::from_fn(|| lanes.pop_if(|_| true)).collect()
    }

    #[test]
    fn everybody_gets_a_turn_and_what_is_worth_most_goes_first() {
        let mut lanes = Lanes::default();
        for number in 0..4 {
            lanes.push("loud", Worth::Ordinary, number, 10);
        }
        lanes.push("quiet", Worth::Ordinary, 10, 10);
        lanes.push("loud", Worth::Precious, 20, 10);
        lanes.push("quiet", Worth::Required, 30, 10);
        lanes.push("quiet", Worth::Ordinary, 11, 10);
        assert_eq!((lanes.len(), lanes.bytes(), lanes.ordinary_bytes()), (8, 80, 60));
        assert_eq!(lanes.pop_if(|bytes| bytes > 10), None);
        assert_eq!(popped(&mut lanes), [30, 20, 0, 10, 1, 11, 2, 3]);
        assert_eq!((lanes.len(), lanes.bytes(), lanes.ordinary_bytes()), (0, 0, 0));
        assert!(lanes.lanes.is_empty() && lanes.by_bytes.is_empty() && lanes.by_ordinary.is_empty());
    }

    #[test]
    fn what_is_required_leaves_every_fourth_turn_to_what_is_precious_of_others() {
        let mut lanes = Lanes::default();
        for number in 0..9 {
            lanes.push("loud", Worth::Required, number, 10);
        }
        lanes.push("quiet", Worth::Precious, 20, 10);
        lanes.push("calm", Worth::Precious, 30, 10);
        lanes.push("calm", Worth::Ordinary, 40, 10);
        let taken: Vec<u32> = std::iter::from_fn(|| lanes.pop_if(|_| true)).take(4).collect();
        assert_eq!(taken, [0, 1, 2, 20]);
        assert_eq!(popped(&mut lanes), [3, 4, 5, 30, 6, 7, 8, 40]);
    }

    #[test]
    fn who_has_most_makes_room_and_of_that_what_is_worth_least() {
        let mut lanes = Lanes::default();
        lanes.push("loud", Worth::Required, 1, 100);
        lanes.push("loud", Worth::Precious, 2, 100);
        lanes.push("loud", Worth::Precious, 3, 100);
        lanes.push("loud", Worth::Ordinary, 4, 10);
        lanes.push("quiet", Worth::Ordinary, 5, 100);
        let mut shed = |newcomer, worth, bytes| lanes.shed(newcomer, worth, bytes).map(|shed| shed.item);
        assert_eq!(shed("loud", Worth::Ordinary, 10), None, "it has most: nothing else has to go for it");
        assert_eq!(shed("loud", Worth::Precious, 10), Some(4), "of its own what is worth less");
        assert_eq!(shed("loud", Worth::Precious, 10), None);
        assert_eq!(shed("new", Worth::Ordinary, 10), Some(3), "from who has most, the newest");
        assert_eq!(shed("loud", Worth::Required, 10), Some(2));
        assert_eq!(shed("new", Worth::Required, 101), None, "it would have most itself");
        assert_eq!(shed("new", Worth::Required, 10), Some(5));
        assert_eq!(shed("new", Worth::Required, 10), Some(1));
        assert_eq!(shed("new", Worth::Required, 10), None, "nothing is left");
        assert_eq!(popped(&mut lanes), [0; 0]);
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn ordinary_things_make_room_among_themselves() {
        let mut lanes = Lanes::default();
        lanes.push("refused", Worth::Precious, 1, 1_000);
        lanes.push("loud", Worth::Ordinary, 2, 60);
        lanes.push("loud", Worth::Ordinary, 3, 60);
        lanes.push("quiet", Worth::Ordinary, 4, 10);
        let mut shed = |newcomer: &str| lanes.shed_ordinary(newcomer, 10).map(|shed| shed.item);
        assert_eq!(shed("loud"), None);
        assert_eq!(
            [shed("quiet"), shed("new"), shed("new"), shed("refused")],
            [Some(2), Some(3), None, None]
        );
        assert_eq!(lanes.shed_most_ordinary().map(|shed| shed.item), Some(4));
        assert_eq!(lanes.shed_most_ordinary(), None);
        assert_eq!(popped(&mut lanes), [1]);
    }

    /// Against a list that is looked at as a whole.
    #[test]
    fn amounts_and_turns_stay_right_whatever_happens() {
        let (mut lanes, mut plain) = (Lanes::default(), Vec::<(u32, Worth, u32, usize)>::new());
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for number in 0..20_000_u32 {
            let worth =
                [Worth::Ordinary, Worth::Precious, Worth::Required][usize::try_from(random(3)).unwrap()];
            let (name, bytes) = (u32::try_from(random(7)).unwrap(), usize::try_from(1 + random(50)).unwrap());
            let gone = match random(5) {
                0 | 1 => {
                    lanes.push(&name.to_string(), worth, number, bytes);
                    plain.push((name, worth, number, bytes));
                    None
                }
                2 => lanes.pop_if(|_| true),
                3 => {
                    let held =
                        |of: u32| -> usize { plain.iter().filter(|one| one.0 == of).map(|one| one.3).sum() };
                    let shed = lanes.shed(&name.to_string(), worth, bytes);
                    if let Some(shed) = &shed {
                        let from: u32 = shed.workload.parse().unwrap();
                        assert!((0..7).all(|other| held(other) <= held(from).max(held(name) + bytes)));
                        assert!(from != name || shed.worth < worth);
                    }
                    shed.map(|shed| shed.item)
                }
                _ => lanes.shed_ordinary(&name.to_string(), bytes).map(|shed| shed.item),
            };
            if let Some(gone) = gone {
                let at = plain.iter().position(|one| one.2 == gone).unwrap();
                plain.remove(at);
            }
            assert_eq!(lanes.len(), plain.len());
            assert_eq!(lanes.bytes(), plain.iter().map(|one| one.3).sum::<usize>());
            let ordinary = plain.iter().filter(|one| one.1 == Worth::Ordinary);
            assert_eq!(lanes.ordinary_bytes(), ordinary.map(|one| one.3).sum::<usize>());
        }
        assert_eq!(popped(&mut lanes).len(), plain.len());
        assert!(lanes.lanes.is_empty());
    }
}
