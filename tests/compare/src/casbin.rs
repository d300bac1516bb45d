use casbin::{CoreApi, DefaultModel, Enforcer, MemoryAdapter, MgmtApi};

use crate::{Asked, Engine, HOST, Made};

const MODEL: &str = "
[request_definition]
r = account, project, method, host, path

[policy_definition]
p = account, project, method, host, path

[policy_effect]
e = some(where (p.eft == allow))

[matchers]
m = r.account == p.account && r.project == p.project && r.method == p.method && r.host == p.host && keyMatch(r.path, p.path)
";

pub struct Casbin {
    enforcer: Enforcer,
}

impl Casbin {
    pub fn new(rules: usize) -> Made {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let policies = (0..rules)
            .map(|at| {
                let (account, path) = (format!("worker-{at}"), format!("/svc-{at}/orders/*"));
                vec![account, at.to_string(), "GET".into(), HOST.into(), path]
            })
            .collect();
        let enforcer = runtime.block_on(async {
            let model = DefaultModel::from_str(MODEL).await?;
            let mut enforcer = Enforcer::new(model, MemoryAdapter::default()).await?;
            enforcer.add_policies(policies).await?;
            Ok::<_, casbin::Error>(enforcer)
        })?;
        Ok(Box::new(Self { enforcer }))
    }
}

impl Engine for Casbin {
    fn name(&self) -> &'static str {
        "casbin"
    }

    fn allows(&mut self, asked: &Asked) -> bool {
        let request = (&*asked.account, &*asked.project, &*asked.method, &*asked.host, &*asked.path);
        self.enforcer.enforce(request).unwrap_or(false)
    }
}
