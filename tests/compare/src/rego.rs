use std::collections::BTreeMap;

use regorus::{CompiledPolicy, Value};

use crate::{Asked, Engine, HOST, Made};

/// Rules as data, and a policy that goes through all of them, or through those of the caller.
pub struct Rego {
    name: &'static str,
    policy: CompiledPolicy,
}

const RULE: &str = "
    rule.account == input.account
    rule.project == input.project
    rule.method == input.method
    rule.host == input.host
    startswith(input.path, rule.prefix)
";

impl Rego {
    pub fn linear(rules: usize) -> Made {
        Self::new("regorus, linear", rules, "some rule in data.rules")
    }

    pub fn indexed(rules: usize) -> Made {
        Self::new("regorus, indexed", rules, "some rule in data.by_account[input.account]")
    }

    fn new(name: &'static str, rules: usize, search: &str) -> Made {
        let rule = |at: usize| {
            object([
                ("account", &format!("worker-{at}")),
                ("project", &at.to_string()),
                ("method", "GET"),
                ("host", HOST),
                ("prefix", &format!("/svc-{at}/orders/")),
            ])
        };
        let all: Vec<Value> = (0..rules).map(rule).collect();
        let by_account: BTreeMap<Value, Value> = all
            .iter()
            .enumerate()
            .map(|(at, rule)| (Value::from(format!("worker-{at}")), Value::from(vec![rule.clone()])))
            .collect();
        let data = BTreeMap::from([
            (Value::from("rules"), Value::from(all)),
            (Value::from("by_account"), Value::from(by_account)),
        ]);
        let mut engine = regorus::Engine::new();
        engine.add_policy(
            "access.rego".into(),
            format!(
                "package access\nimport rego.v1\ndefault allow := false\nallow if {{\n    {search}{RULE}}}\n"
            ),
        )?;
        engine.add_data(Value::from(data))?;
        let policy = engine.compile_with_entrypoint(&"data.access.allow".into())?;
        Ok(Box::new(Self { name, policy }))
    }
}

fn object<const FIELDS: usize>(fields: [(&str, &str); FIELDS]) -> Value {
    let fields = fields.map(|(name, value)| (Value::from(name), Value::from(value)));
    Value::from(BTreeMap::from(fields))
}

impl Engine for Rego {
    fn name(&self) -> &'static str {
        self.name
    }

    fn allows(&mut self, asked: &Asked) -> bool {
        let input = object([
            ("account", &asked.account),
            ("project", &asked.project),
            ("method", &asked.method),
            ("host", &asked.host),
            ("path", &asked.path),
        ]);
        self.policy.eval_with_input(input).is_ok_and(|result| result == Value::from(true))
    }
}
