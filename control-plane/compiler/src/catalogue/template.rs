//! Path templates of google.api.http: `/v1/{topic=projects/*/topics/*}:publish`.
//!
//! Source: google/api/http.proto, "Path template syntax". `{v}` is one segment, `{v=a/*/b/**}` a path of its own, and a
//! verb after `:` ends the last segment.

use std::collections::BTreeMap;

/// A path template, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    variables: BTreeMap<String, Vec<VariablePart>>,
}

/// One segment of a path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// These characters; none in the last segment: the path ends with a slash.
    Literal(String),
    /// A segment of a variable, and what follows in the same segment.
    Variable {
        /// The variable.
        name: String,
        /// Which of its open segments, counted from 0.
        index: usize,
        /// One or more segments instead of one.
        rest: bool,
        /// What follows in the same segment: a verb with its colon, mostly.
        suffix: String,
    },
}

/// A segment of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VariablePart {
    /// These characters.
    Literal(String),
    /// What the request says.
    Open {
        /// Counted from 0.
        index: usize,
        /// One or more segments instead of one.
        rest: bool,
    },
}

/// A template that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidTemplate {
    /// The template.
    pub template: String,
    /// What is wrong with it.
    pub why: &'static str,
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// If it does not begin with a slash, has an empty segment, or braces that do not match.
    pub fn parse(text: &str) -> Result<Self, InvalidTemplate> {
        let invalid = |why| InvalidTemplate { template: text.to_owned(), why };
        let mut template = Self { parts: Vec::new(), variables: BTreeMap::new() };
        let mut rest = text.strip_prefix('/').ok_or_else(|| invalid("it does not begin with a slash"))?;
        if rest.is_empty() {
            return Ok(template);
        }
        loop {
            rest = template.segment(rest).map_err(invalid)?;
            match rest.strip_prefix('/') {
                Some(after) => rest = after,
                None if rest.is_empty() => return Ok(template),
                None => return Err(invalid("something follows a segment")),
            }
        }
    }

    /// Its segments; none for `/`.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// A variable's own segments; `None` if the template has no such variable.
    pub fn variable(&self, name: &str) -> Option<&[VariablePart]> {
        self.variables.get(name).map(Vec::as_slice)
    }

    /// The names of its variables.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// Whether the last segment ends with a verb, e.g. `:publish`.
    pub fn has_verb(&self) -> bool {
        match self.parts.last() {
            Some(Part::Literal(text)) => text.contains(':'),
            Some(Part::Variable { suffix, .. }) => suffix.contains(':'),
            None => false,
        }
    }

    /// Reads one segment, or a variable of several; returns what is left.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, &'static str> {
        let Some(inside) = text.strip_prefix('{') else {
            let (literal, rest) = text.split_at(text.find('/').unwrap_or(text.len()));
            let is_trailing_slash = text.is_empty() && !self.parts.is_empty();
            if (literal.is_empty() && !is_trailing_slash) || literal.contains(['{', '}', '*']) {
                return Err("a segment is empty, or neither a name nor a variable");
            }
            self.parts.push(Part::Literal(literal.to_owned()));
            return Ok(rest);
        };
        let (inside, after) = inside.split_once('}').ok_or("a brace is not closed")?;
        let (name, pattern) = inside.split_once('=').unwrap_or((inside, "*"));
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte))
        {
            return Err("a variable has no name");
        }
        let (suffix, rest) = after.split_at(after.find('/').unwrap_or(after.len()));
        if suffix.contains(['{', '}', '*']) {
            return Err("two variables are in one segment");
        }
        let mut segments = Vec::new();
        for part in pattern.split('/') {
            let index = segments.iter().filter(|one| matches!(one, VariablePart::Open { .. })).count();
            let segment = match part {
                "*" => VariablePart::Open { index, rest: false },
                "**" => VariablePart::Open { index, rest: true },
                "" => return Err("a segment of a variable is empty"),
                _ if part.contains(['*', ':']) => return Err("a variable has a pattern inside of a segment"),
                _ => VariablePart::Literal(part.to_owned()),
            };
            self.parts.push(match &segment {
                VariablePart::Literal(text) => Part::Literal(text.clone()),
                VariablePart::Open { index, rest } => Part::Variable {
                    name: name.to_owned(),
                    index: *index,
                    rest: *rest,
                    suffix: String::new(),
                },
            });
            segments.push(segment);
        }
        match self.parts.last_mut() {
            Some(Part::Variable { suffix: there, .. }) => suffix.clone_into(there),
            Some(Part::Literal(text)) => text.push_str(suffix),
            None => {}
        }
        if self.variables.insert(name.to_owned(), segments).is_some() {
            return Err("a variable is there twice");
        }
        Ok(rest)
    }
}
