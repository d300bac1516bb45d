//! Names of resources as rules write them: `projects/acme/topics/orders-*`.
//!
//! Segments between slashes; `*` stands for zero or more characters of one segment, and `**`, only at the end, for one or
//! more segments.

use tidegate_engine::normal;

use crate::catalogue::{NamePart, Source};

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    segments: Vec<Segment>,
}

/// One segment of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// These characters.
    Literal(String),
    /// `*`: whatever one segment holds.
    Any,
    /// With `*` for some of its characters.
    Glob(String),
    /// `**`: one or more segments.
    Rest,
}

/// What a name demands of a part that a request carries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    /// Nothing.
    Any,
    /// One segment.
    One(Segment),
    /// What may be several segments, which the request carries as one value.
    Many(Vec<Segment>),
}

impl Value {
    /// Whether it demands nothing.
    pub(crate) fn is_any(&self) -> bool {
        match self {
            Self::Any => true,
            Self::One(_) => false,
            Self::Many(segments) => *segments == [Segment::Rest],
        }
    }
}

/// Why a name cannot be read.
#[derive(Debug)]
pub(crate) struct NameProblem {
    pub(crate) why: &'static str,
    pub(crate) fix: String,
}

/// Parts of a name with what is demanded of them.
pub(crate) type Bound<'p> = Vec<(&'p Source, Value)>;

// === impl Name ===

impl Name {
    /// `**`.
    pub(crate) fn any() -> Self {
        Self { segments: vec![Segment::Rest] }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, NameProblem> {
        let problem = |why: &'static str, fix: String| Err(NameProblem { why, fix });
        if let Some(rest) = text.strip_prefix("//") {
            let fix = match rest.split_once('/') {
                Some((_, name)) if !name.is_empty() => format!("write `{name}`"),
                _ => "write the name alone, e.g. `projects/acme/topics/orders`".to_owned(),
            };
            return problem("the service is said in `service`", fix);
        }
        if let Some((_, name)) = text.split_once("://") {
            return problem(
                "a name is not a URL",
                format!("write it as `{name}` is called by the service's API"),
            );
        }
        let trimmed = text.trim_matches('/');
        if trimmed.is_empty() {
            return problem("an empty name matches nothing", "for every resource, write `**`".to_owned());
        }
        if trimmed != text {
            return problem("names neither begin nor end with a slash", format!("write `{trimmed}`"));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let mut segments = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let last = at.saturating_add(1) == parts.len();
            segments.push(match *part {
                "" => return problem("a segment is empty", "write one slash".to_owned()),
                "**" if last => Segment::Rest,
                "*" => Segment::Any,
                _ if part.contains("**") => {
                    let fix = "put it last, after a slash; inside of a segment write `*`".to_owned();
                    return problem("`**` stands for the rest of the name", fix);
                }
                _ if part.contains(['{', '}']) => {
                    return problem("names have no variables", "write `*` for a whole segment".to_owned());
                }
                _ if encode(part).is_none() => {
                    let why = "no request that has such characters is allowed, however they are encoded";
                    return problem(why, "name the resource by a pattern that leaves them open".to_owned());
                }
                _ if part.contains('*') => Segment::Glob((*part).to_owned()),
                _ => Segment::Literal((*part).to_owned()),
            });
        }
        Ok(Self { segments })
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What the name demands of each part that a request carries; `None` if no such request has this name.
    pub(crate) fn bind<'p>(&self, parts: &'p [NamePart]) -> Option<Bound<'p>> {
        let mut bound = Vec::new();
        let mut rest = self.segments.as_slice();
        for part in parts {
            let open = rest.first() == Some(&Segment::Rest);
            match part {
                NamePart::Variable { from, many: true } if open => {
                    bound.push((from, Value::Many(vec![Segment::Rest])));
                }
                NamePart::Variable { from, many: true } => {
                    if rest.is_empty() {
                        return None;
                    }
                    bound.push((from, Value::Many(rest.to_vec())));
                    rest = &[];
                }
                NamePart::Variable { from, many: false } => {
                    let (first, others) = rest.split_first()?;
                    bound.push((
                        from,
                        match first {
                            Segment::Any | Segment::Rest => Value::Any,
                            other => Value::One(other.clone()),
                        },
                    ));
                    rest = if open { rest } else { others };
                }
                NamePart::Literal(text) => {
                    let (first, others) = rest.split_first()?;
                    if !first.matches(text) {
                        return None;
                    }
                    rest = if open { rest } else { others };
                }
            }
        }
        // `**` stands for at least one part.
        let is_whole = rest.is_empty() || (*rest == [Segment::Rest] && parts.len() >= self.segments.len());
        is_whole.then_some(bound)
    }

    /// Whether some resource of this pattern has the name.
    pub(crate) fn meets(&self, pattern: &[String]) -> bool {
        meets(&self.segments, pattern)
    }

    /// Whether every resource of this pattern has the name.
    pub(crate) fn covers(&self, pattern: &[String]) -> bool {
        covers(&self.segments, pattern)
    }

    /// Whether names that only add characters to the end of one that it matches are matched as well.
    pub(crate) fn is_open_at_the_end(&self) -> bool {
        match self.segments.last() {
            Some(Segment::Any | Segment::Rest) => true,
            Some(Segment::Glob(glob)) => glob.ends_with('*'),
            Some(Segment::Literal(_)) | None => false,
        }
    }
}

fn meets(name: &[Segment], pattern: &[String]) -> bool {
    match (name, pattern) {
        ([], []) => true,
        ([Segment::Rest], pattern) => !pattern.is_empty(),
        (name, [first, others @ ..]) if first == "**" => {
            name.contains(&Segment::Rest)
                || (1..=name.len()).any(|taken| name.get(taken..).is_some_and(|rest| meets(rest, others)))
        }
        ([first, names @ ..], [pattern, others @ ..]) => {
            (pattern == "*" || first.matches(pattern)) && meets(names, others)
        }
        _ => false,
    }
}

fn covers(name: &[Segment], pattern: &[String]) -> bool {
    match (name, pattern) {
        ([], []) => true,
        ([Segment::Rest], pattern) => !pattern.is_empty(),
        ([first, names @ ..], [pattern, others @ ..]) => {
            let covered = match pattern.as_str() {
                "**" => false,
                "*" => *first == Segment::Any,
                literal => first.matches(literal),
            };
            covered && covers(names, others)
        }
        _ => false,
    }
}

// === impl Segment ===

impl Segment {
    /// Whether it matches these characters.
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Any | Self::Rest => true,
            Self::Glob(glob) => glob_matches(glob, text),
        }
    }

    /// As a glob.
    pub(crate) fn glob(&self) -> &str {
        match self {
            Self::Literal(text) | Self::Glob(text) => text,
            Self::Any | Self::Rest => "*",
        }
    }
}

/// Whether a glob matches: `*` stands for zero or more characters.
pub(crate) fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((before, after)) = glob.split_once('*') else { return glob == text };
    let Some(mut rest) = text.strip_prefix(before) else { return false };
    let mut after = after;
    while let Some((middle, others)) = after.split_once('*') {
        let Some((_, found)) = rest.split_once(middle) else { return false };
        rest = found;
        after = others;
    }
    rest.ends_with(after)
}

/// Characters of a name as the engine's one normalisation reads them in a path; `*` stays. `None`: no request has them.
pub(crate) fn encode(text: &str) -> Option<String> {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte) {
            encoded.push(char::from(byte));
        } else if byte == b'%' {
            return None;
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    let path = format!("/{encoded}");
    let read = normal::path(path.as_bytes());
    (!read.ambiguous() && read.display().to_string() == path).then_some(encoded)
}
