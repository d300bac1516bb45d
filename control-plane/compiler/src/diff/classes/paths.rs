//! One path of every class that path templates tell apart.

use std::collections::BTreeSet;

use tidegate_engine::model::{PathPattern, SegmentPattern};

use super::OTHER;
use crate::warnings::glob_matches;

/// A template and how many of its segments are behind.
type Alive = BTreeSet<(usize, usize)>;

/// Paths, with and without a trailing slash. `None` where several globs meet in one segment, of which it is not known
/// what they have in common.
pub(super) fn classes(patterns: &[&PathPattern]) -> Option<Vec<String>> {
    let mut walk = Walk { patterns, seen: BTreeSet::new(), paths: vec!["/".to_owned()] };
    let all = (0..patterns.len()).map(|pattern| (pattern, 0)).collect();
    let longest = patterns.iter().map(|pattern| pattern.segments.len()).max().unwrap_or(0);
    walk.on(&all, "", longest.saturating_add(1))?;
    Some(walk.paths)
}

struct Walk<'p> {
    patterns: &'p [&'p PathPattern],
    /// What a path is followed by depends only on the templates that are still possible.
    seen: BTreeSet<(Alive, usize)>,
    paths: Vec<String>,
}

// === impl Walk ===

impl Walk<'_> {
    fn segment(&self, (pattern, at): (usize, usize)) -> Option<&SegmentPattern> {
        self.patterns.get(pattern)?.segments.get(at)
    }

    /// Goes on by one segment of every class. `left`: segments that a path may still have.
    fn on(&mut self, alive: &Alive, path: &str, left: usize) -> Option<()> {
        if left == 0 || !self.seen.insert((alive.clone(), left)) {
            return Some(());
        }
        let mut texts: BTreeSet<String> = BTreeSet::from([OTHER.to_owned()]);
        let mut globs: BTreeSet<&str> = BTreeSet::new();
        for place in alive {
            match self.segment(*place) {
                Some(SegmentPattern::Literal(text)) if !text.is_empty() => {
                    texts.insert(text.clone());
                }
                Some(SegmentPattern::Glob(glob)) => {
                    globs.insert(glob);
                }
                _ => {}
            }
        }
        if globs.len() > 1 {
            return None;
        }
        for glob in globs {
            texts.insert(glob.replace('*', OTHER));
            texts.insert(glob.replace('*', ""));
        }
        texts.remove("");
        for text in texts {
            let next = self.after(alive, &text);
            let path = format!("{path}/{text}");
            self.paths.extend([path.clone(), format!("{path}/")]);
            self.on(&next, &path, left.saturating_sub(1))?;
        }
        Some(())
    }

    /// The templates that are still possible after a segment.
    fn after(&self, alive: &Alive, text: &str) -> Alive {
        let step = |place: &(usize, usize)| {
            let next = (place.0, place.1.saturating_add(1));
            match self.segment(*place)? {
                SegmentPattern::Literal(literal) => (literal == text).then_some(next),
                SegmentPattern::Glob(glob) => glob_matches(glob, text).then_some(next),
                SegmentPattern::One => Some(next),
                SegmentPattern::Rest => Some(*place),
            }
        };
        alive.iter().filter_map(step).collect()
    }
}
