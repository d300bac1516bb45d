use std::fmt::Write;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression,
};

use crate::{Asked, Engine, HOST, Made};

/// Caller and method are in the scope, which Cedar looks at first; the rest in a condition.
pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    caller: EntityTypeName,
    action: EntityTypeName,
    resource: EntityUid,
}

impl Cedar {
    pub fn new(rules: usize) -> Made {
        let mut text = String::new();
        for at in 0..rules {
            writeln!(
                text,
                "permit(principal == Caller::\"worker-{at}\", action == Action::\"GET\", resource) when {{ \
                 context.project == \"{at}\" && context.host == \"{HOST}\" && \
                 context.path like \"/svc-{at}/orders/*\" }};"
            )?;
        }
        Ok(Box::new(Self {
            authorizer: Authorizer::new(),
            policies: text.parse()?,
            entities: Entities::empty(),
            caller: "Caller".parse()?,
            action: "Action".parse()?,
            resource: "Service::\"orders\"".parse()?,
        }))
    }

    fn request(&self, asked: &Asked) -> Option<Request> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let uid = |kind: &EntityTypeName, id: &str| {
            EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
        };
        let context = Context::from_pairs([
            ("project".to_owned(), text(&asked.project)),
            ("host".to_owned(), text(&asked.host)),
            ("path".to_owned(), text(&asked.path)),
        ])
        .ok()?;
        let (caller, action) = (uid(&self.caller, &asked.account), uid(&self.action, &asked.method));
        Request::new(caller, action, self.resource.clone(), context, None).ok()
    }
}

impl Engine for Cedar {
    fn name(&self) -> &'static str {
        "cedar-policy"
    }

    fn allows(&mut self, asked: &Asked) -> bool {
        self.request(asked).is_some_and(|request| {
            self.authorizer.is_authorized(&request, &self.policies, &self.entities).decision()
                == Decision::Allow
        })
    }
}
