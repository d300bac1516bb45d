//! Schemas of what is decoded by hand, beside the derived ones.
//!
//! INVARIANT: each accepts what its `Deserialize` accepts and nothing else; `tests/schema.rs` holds them against each other.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    ActorSpec, AmountSpec, ClaimJson, ClaimValueSpec, DecisionSpec, ExpectationSpec, IdSpec, OneOrMany,
    ShadowSpec, TestTokenFields, TestTokenSpec,
};

/// An implementation that is one schema.
macro_rules! shape {
    ($type:ident, $inline:literal, |$generator:ident| $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

shape!(OneOrMany, true, |_generator| json_schema!({
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}));

shape!(IdSpec, true, |_generator| json_schema!({"type": ["integer", "string"]}));

shape!(AmountSpec, true, |_generator| json_schema!({"type": ["integer", "string"]}));

shape!(ClaimValueSpec, true, |_generator| json_schema!({
    "anyOf": [
        {"type": ["string", "integer", "boolean"]},
        {"type": "array", "items": {"type": "string"}},
    ],
}));

shape!(ActorSpec, true, |_generator| json_schema!({
    "anyOf": [
        {"const": "none"},
        {
            "type": "object",
            "properties": {"subjects": {"type": "array", "items": {"type": "string"}}},
            "required": ["subjects"],
            "additionalProperties": false,
        },
    ],
}));

shape!(ClaimJson, false, |generator| {
    let this = generator.subschema_for::<Self>();
    json_schema!({
        "anyOf": [
            {"type": ["boolean", "integer", "string"]},
            {"type": "array", "items": this},
            {"type": "object", "additionalProperties": this},
        ],
    })
});

shape!(TestTokenSpec, true, |generator| {
    let fields = generator.subschema_for::<TestTokenFields>();
    json_schema!({"anyOf": [{"type": "string"}, fields]})
});

shape!(ExpectationSpec, true, |generator| {
    let decision = generator.subschema_for::<DecisionSpec>();
    let shadow = generator.subschema_for::<ShadowSpec>();
    json_schema!({
        "anyOf": [
            decision,
            {
                "type": "object",
                "properties": {
                    "decision": decision,
                    "reason": {"type": "string", "description": "A reason code; absent: any."},
                    "rule": {"type": "string", "description": "The rule that decides, `namespace/name`; absent: any."},
                    "shadow": shadow,
                },
                "required": ["decision"],
                "additionalProperties": false,
            },
        ],
    })
});
