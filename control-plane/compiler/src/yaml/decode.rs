//! Trees to plain types, through serde, with every error of a document and not only the first.
//!
//! Serde stops at the first error. So the error is noted, the place is repaired in a copy of the tree (an unknown field is
//! taken out, anything else becomes a [`Value::Hole`]), and reading starts again.
//!
//! INVARIANT: a value comes out only when nothing had to be repaired.

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Entry, Node, Step, Style, Value, scalar, scalar::Plain};

mod error;

use error::Error;
pub(crate) use error::{DecodeFault, Fault};

/// After so many errors the rest of a document is not looked at.
const MAX_FAULTS: usize = 64;

/// What came of reading a document.
#[derive(Debug)]
pub(crate) enum Decoded<T> {
    Value(T),
    /// None only where everything unusable was a [`Value::Hole`] before.
    Faults(Vec<DecodeFault>),
}

/// Reads a type out of a tree.
pub(crate) fn decode<T: DeserializeOwned>(root: &Node<'_>) -> Decoded<T> {
    let first = match T::deserialize(Reader(root)) {
        Ok(value) => return Decoded::Value(value),
        Err(error) => error,
    };
    let mut tree = root.clone();
    let mut faults = Vec::new();
    let mut next = Some(first);
    while let Some(error) = next.take() {
        let Some(fault) = error.into_fault() else { break };
        let repaired = repair(&mut tree, &fault);
        faults.push(fault);
        if !repaired || faults.len() >= MAX_FAULTS {
            break;
        }
        next = T::deserialize(Reader(&tree)).err();
    }
    Decoded::Faults(faults)
}

/// Changes the tree so that reading gets past the fault.
fn repair(tree: &mut Node<'_>, fault: &DecodeFault) -> bool {
    match &fault.fault {
        Fault::UnknownField { name, .. } => {
            let Some((Step::Key(_), parent)) = fault.path.split_last() else { return false };
            let Some(Value::Map(entries)) = tree.at_path_mut(parent).map(|node| &mut node.value) else {
                return false;
            };
            let before = entries.len();
            entries.retain(|entry| entry.key != *name);
            entries.len() < before
        }
        Fault::MissingField { name } => {
            let Some(node) = tree.at_path_mut(&fault.path) else { return false };
            let at = node.at;
            let Value::Map(entries) = &mut node.value else { return false };
            if entries.iter().any(|entry| entry.key == *name) {
                return false;
            }
            entries.push(Entry { key: (*name).into(), key_at: at, value: Node { at, value: Value::Hole } });
            true
        }
        Fault::WrongType { .. }
        | Fault::UnknownValue { .. }
        | Fault::Ambiguous { .. }
        | Fault::Null
        | Fault::Other(_) => match tree.at_path_mut(&fault.path) {
            Some(node) if node.value != Value::Hole => {
                node.value = Value::Hole;
                true
            }
            _ => false,
        },
    }
}

/// Reads a node.
#[derive(Clone, Copy)]
struct Reader<'t>(&'t Node<'t>);

/// Reads the name of a field.
struct KeyReader<'t>(&'t str);

struct ListReader<'t> {
    items: std::iter::Enumerate<std::slice::Iter<'t, Node<'t>>>,
}

struct MapReader<'t> {
    entries: std::slice::Iter<'t, Entry<'t>>,
    current: Option<&'t Entry<'t>>,
}

/// Gives every field of a struct a hole.
struct HoleReader {
    fields: std::slice::Iter<'static, &'static str>,
}

static HOLE: Node<'static> = Node { at: super::Position { line: 0, column: 0 }, value: Value::Hole };

struct NameReader<'t>(&'t str);

// === impl Reader ===

impl<'t> Reader<'t> {
    fn is_null(self) -> bool {
        matches!(&self.0.value, Value::Scalar { text, style: Style::Plain } if scalar::classify(text) == Plain::Null)
    }

    fn refuse_null(self) -> Result<(), Error> {
        if self.is_null() { Err(Error::new(Fault::Null)) } else { Ok(()) }
    }

    fn in_hole(self) -> bool {
        self.0.value == Value::Hole
    }

    /// Runs a visitor; what fails inside of a hole is not a new finding.
    fn visit<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        if self.in_hole() { result.map_err(Error::in_hole) } else { result }
    }

    fn string(self) -> Result<&'t str, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => Ok(""),
            Value::Scalar { text, style: Style::Quoted | Style::Substituted } => Ok(text),
            Value::Scalar { text, style: Style::Plain } => match scalar::classify(text) {
                Plain::Text => Ok(text),
                Plain::Ambiguous(meaning) => {
                    Err(Error::new(Fault::Ambiguous { text: text.clone().into_owned(), meaning }))
                }
                Plain::Boolean(_) | Plain::Integer(_) | Plain::Null => {
                    Err(Error::wrong_type("a string", self.0))
                }
            },
            Value::List(_) | Value::Map(_) => Err(Error::wrong_type("a string", self.0)),
        }
    }

    fn integer(self) -> Result<i64, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => Ok(0),
            Value::Scalar { text, style: Style::Plain | Style::Substituted } => {
                match scalar::classify(text) {
                    Plain::Integer(integer) => Ok(integer),
                    _ => Err(Error::wrong_type("a whole number", self.0)),
                }
            }
            _ => Err(Error::wrong_type("a whole number", self.0)),
        }
    }

    fn boolean(self) -> Result<bool, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => Ok(false),
            Value::Scalar { text, style: Style::Plain | Style::Substituted } => {
                match scalar::classify(text) {
                    Plain::Boolean(boolean) => Ok(boolean),
                    _ => Err(Error::wrong_type("`true` or `false`", self.0)),
                }
            }
            _ => Err(Error::wrong_type("`true` or `false`", self.0)),
        }
    }

    fn list(self) -> Result<ListReader<'t>, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => Ok(ListReader { items: [].iter().enumerate() }),
            Value::List(items) => Ok(ListReader { items: items.iter().enumerate() }),
            _ => Err(Error::wrong_type("a list", self.0)),
        }
    }

    fn map(self) -> Result<MapReader<'t>, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => Ok(MapReader { entries: [].iter(), current: None }),
            Value::Map(entries) => Ok(MapReader { entries: entries.iter(), current: None }),
            _ => Err(Error::wrong_type("a mapping", self.0)),
        }
    }
}

macro_rules! integers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.visit(visitor.visit_i64(self.integer()?))
        })*
    };
}

impl<'de> de::Deserializer<'de> for Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => self.visit(visitor.visit_str("")),
            Value::List(_) => visitor.visit_seq(self.list()?),
            Value::Map(_) => visitor.visit_map(self.map()?),
            Value::Scalar { style: Style::Plain, text } => match scalar::classify(text) {
                Plain::Boolean(boolean) => visitor.visit_bool(boolean),
                Plain::Integer(integer) => visitor.visit_i64(integer),
                _ => visitor.visit_str(self.string()?),
            },
            Value::Scalar { text, .. } => visitor.visit_str(text),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.boolean()?)
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visit(visitor.visit_str(self.string()?))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    /// A null is a fault here too: "no value" would be read as "no constraint".
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.refuse_null()?;
        if self.in_hole() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::wrong_type("nothing", self.0))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(self.list()?)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(self.map()?)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.in_hole() {
            return self.visit(visitor.visit_map(HoleReader { fields: fields.iter() }));
        }
        visitor.visit_map(self.map()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.refuse_null()?;
        match &self.0.value {
            Value::Hole => {
                let first = variants.first().copied().unwrap_or_default();
                self.visit(visitor.visit_enum(NameReader(first)))
            }
            Value::Scalar { text, .. } => visitor.visit_enum(NameReader(text)),
            Value::List(_) | Value::Map(_) => Err(Error::wrong_type("a name", self.0)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        f32 f64 bytes byte_buf unit_struct tuple tuple_struct identifier
    }
}

impl<'de> de::SeqAccess<'de> for ListReader<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        match self.items.next() {
            None => Ok(None),
            Some((index, item)) => {
                seed.deserialize(Reader(item)).map(Some).map_err(|error| error.within(Step::Index(index)))
            }
        }
    }
}

impl<'de> de::MapAccess<'de> for MapReader<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.entries.next();
        match self.current {
            None => Ok(None),
            Some(entry) => seed
                .deserialize(KeyReader(&entry.key))
                .map(Some)
                .map_err(|error| error.within(Step::Key(entry.key.clone().into_owned()))),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        match self.current.take() {
            None => Err(de::Error::custom("a value was asked for before its key")),
            Some(entry) => seed
                .deserialize(Reader(&entry.value))
                .map_err(|error| error.within(Step::Key(entry.key.clone().into_owned()))),
        }
    }
}

impl<'de> de::MapAccess<'de> for HoleReader {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.fields.next().map(|field| seed.deserialize(KeyReader(field))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Reader(&HOLE))
    }
}

impl<'de> de::Deserializer<'de> for KeyReader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> de::EnumAccess<'de> for NameReader<'_> {
    type Error = Error;
    type Variant = UnitOnly;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, UnitOnly), Error> {
        seed.deserialize(IntoDeserializer::<Error>::into_deserializer(self.0))
            .map(|variant| (variant, UnitOnly))
    }
}

/// The variants that rules use are plain names.
struct UnitOnly;

impl<'de> de::VariantAccess<'de> for UnitOnly {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Error> {
        Err(de::Error::custom("only a name is expected here"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Error> {
        Err(de::Error::custom("only a name is expected here"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Error> {
        Err(de::Error::custom("only a name is expected here"))
    }
}

#[cfg(test)]
mod tests;
