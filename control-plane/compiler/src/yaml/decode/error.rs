//! What can be wrong with the shape of a document, as serde's error.

use std::fmt;

use serde::de;

use crate::yaml::scalar::{self, Plain};
use crate::yaml::{Node, Step, Style, Value};

/// An error and where it is.
#[derive(Debug)]
pub(crate) struct DecodeFault {
    /// From the root.
    pub(crate) path: Vec<Step>,
    pub(crate) fault: Fault,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    UnknownField { name: String, expected: &'static [&'static str] },
    MissingField { name: &'static str },
    WrongType { expected: String, found: String },
    UnknownValue { value: String, expected: &'static [&'static str] },
    Ambiguous { text: String, meaning: &'static str },
    Null,
    Other(String),
}

/// A serde error: a fault, and the path from the inside out.
#[derive(Debug)]
pub(super) struct Error(Box<ErrorParts>);

#[derive(Debug)]
struct ErrorParts {
    fault: Option<Fault>,
    reversed: Vec<Step>,
}

// === impl Error ===

impl Error {
    pub(super) fn new(fault: Fault) -> Self {
        Self(Box::new(ErrorParts { fault: Some(fault), reversed: Vec::new() }))
    }

    /// An error inside of a hole: its cause is known already.
    pub(super) fn in_hole(mut self) -> Self {
        self.0.fault = None;
        self
    }

    pub(super) fn within(mut self, step: Step) -> Self {
        self.0.reversed.push(step);
        self
    }

    pub(super) fn into_fault(self) -> Option<DecodeFault> {
        let mut path = self.0.reversed;
        path.reverse();
        self.0.fault.map(|fault| DecodeFault { path, fault })
    }

    pub(super) fn wrong_type(expected: &str, node: &Node<'_>) -> Self {
        Self::new(Fault::WrongType { expected: expected.to_owned(), found: describe(node) })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.fault)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Fault::Other(message.to_string()))
    }

    fn invalid_type(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match unexpected {
            de::Unexpected::Signed(number) => format!("the number `{number}`"),
            de::Unexpected::Bool(boolean) => format!("the boolean `{boolean}`"),
            de::Unexpected::Str(text) => format!("the string `{text}`"),
            de::Unexpected::Seq => "a list".to_owned(),
            de::Unexpected::Map => "a mapping".to_owned(),
            other => other.to_string(),
        };
        let expected = match expected.to_string().as_str() {
            "u16" => "a whole number from 0 to 65535".to_owned(),
            other => other.to_owned(),
        };
        Self::new(Fault::WrongType { expected, found })
    }

    fn invalid_value(unexpected: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownValue { value: variant.to_owned(), expected })
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Fault::UnknownField { name: field.to_owned(), expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Fault::MissingField { name: field })
    }
}

/// What a node is, for messages.
fn describe(node: &Node<'_>) -> String {
    match &node.value {
        Value::Hole => "nothing usable".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
        Value::Scalar { text, style: Style::Quoted | Style::Substituted } => format!("the string `{text}`"),
        Value::Scalar { text, style: Style::Plain } => match scalar::classify(text) {
            Plain::Null => "nothing".to_owned(),
            Plain::Boolean(_) => format!("the boolean `{text}`"),
            Plain::Integer(_) => format!("the number `{text}`"),
            Plain::Ambiguous(meaning) => format!("`{text}`, which may be {meaning}"),
            Plain::Text => format!("the string `{text}`"),
        },
    }
}
