//! A Caller as a request has it: the peer, and tokens that say what its forms demand.
//!
//! Its forms are compiled as a rule would compile them, and the demands are filled in. What cannot be filled in (conditions
//! on texts, comparisons) is left out; whoever asks sees in the answer that it is lacking.

use tidegate_compiler::explain::{AskedToken, MeshPeer, Question};
use tidegate_compiler::spec::ClaimJson;
use tidegate_compiler::{Compiled, WorkloadId};
use tidegate_engine::model::{
    ClaimRef, Condition, FromModel, Operand, PeerModel, PolicyModel, Relation, Test,
};

use crate::rules::{Environment, Files};
use crate::serve::compile_files;

/// The file and rule that forms are read from; no rule of a user is called so.
const FILE: &str = "tidegate-as.yaml";
const NAME: &str = "tidegate-as-this-caller";
/// Stands for an id that a directory lists.
const LISTED: &str = "listed";

/// One form of a Caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Persona {
    /// Who is at the other end of the connection.
    pub peer: Option<MeshPeer>,
    /// What is sent along.
    pub tokens: Vec<AskedToken>,
    /// Directories that have to list it.
    pub directories: Vec<String>,
    /// What was assumed.
    pub notes: Vec<String>,
}

/// The forms of a Caller as they come to a workload.
///
/// # Errors
/// When there is no such Caller, or its forms cannot come to this workload.
pub fn personas(
    files: &Files,
    environment: &Environment,
    workload: &WorkloadId,
    caller: &str,
) -> Result<Vec<Persona>, String> {
    if !caller.contains('/') || caller.contains(|c: char| c.is_whitespace() || "\"'{}[],".contains(c)) {
        return Err(format!("`{caller}` is no Caller; write `namespace/name`, e.g. `data/orders-etl`"));
    }
    let rule = format!(
        "kind: AccessRule\nmetadata: {{name: {NAME}, namespace: {}}}\nspec: {{owner: nobody, effect: Allow, mode: Shadow, from: [{{caller: \
         \"{caller}\"}}]}}\n",
        workload.namespace
    );
    let mut files = files.clone();
    files.insert(FILE.to_owned(), rule);
    let compilation = compile_files(&files, environment);
    let Some(compiled) = compilation.output else {
        let said = compilation.diagnostics.iter().find(|one| one.file == FILE || one.is_error());
        let said = said.map(|one| format!("{}; {}", one.message, one.fix)).unwrap_or_default();
        return Err(format!("nobody can be `{caller}` at `{workload}`: {said}"));
    };
    let id = format!("{}/{NAME}", workload.namespace);
    let model =
        &compiled.workloads.get(workload).ok_or_else(|| format!("there is no workload `{workload}`"))?.model;
    let entries = model.rules.iter().filter(|rule| rule.id == id || rule.id.starts_with(&format!("{id}[")));
    let personas: Vec<Persona> =
        entries.flat_map(|rule| &rule.from).map(|from| persona(&compiled, model, from)).collect();
    match personas.is_empty() {
        true => Err(format!("no form of `{caller}` can come to `{workload}`")),
        false => Ok(personas),
    }
}

fn persona(compiled: &Compiled, model: &PolicyModel, from: &FromModel) -> Persona {
    let mut notes = Vec::new();
    let peer = match &from.peer {
        PeerModel::Mesh { trust_domain, namespace, service_accounts } => {
            let account = service_accounts.as_ref().and_then(|accounts| accounts.first());
            if account.is_none() {
                notes.push(format!("any account of `{namespace}` is this caller; `default` was taken"));
            }
            Some(MeshPeer {
                trust_domain: (*trust_domain != compiled.mesh.trust_domain).then(|| trust_domain.clone()),
                namespace: namespace.clone(),
                service_account: account.cloned().unwrap_or_else(|| "default".to_owned()),
            })
        }
        PeerModel::AnyMesh { .. } => {
            notes.push(
                "any workload of the mesh is this caller; say with --peer which one is meant".to_owned(),
            );
            None
        }
        _ => None,
    };
    let tokens = from.issuers.iter().filter_map(|issuer| model.issuers.get(usize::from(*issuer)));
    let tokens =
        tokens.map(|issuer| AskedToken { issuer: issuer.name.clone(), ..AskedToken::default() }).collect();
    let mut persona = Persona { peer, tokens, directories: Vec::new(), notes };
    // Claims that have to be the same as others are known once the others are.
    persona.satisfy(model, &from.condition);
    persona.satisfy(model, &from.condition);
    persona
}

// === impl Persona ===

impl Persona {
    /// Puts it into a question.
    pub fn add_to(&self, question: &mut Question) {
        question.peer = self.peer.clone();
        question.tokens = self.tokens.clone();
        for name in &self.directories {
            question.directories.entry(name.clone()).or_default().push(LISTED.to_owned());
        }
    }

    fn satisfy(&mut self, model: &PolicyModel, condition: &Condition) {
        match condition {
            Condition::All(parts) => parts.iter().for_each(|part| self.satisfy(model, part)),
            Condition::Any(parts) => {
                if let Some(first) = parts.first() {
                    self.satisfy(model, first);
                }
            }
            Condition::Claim(claim, test) => self.claim(model, *claim, test),
            Condition::Compare(Operand::Claim(claim), Relation::Equal, other)
            | Condition::Compare(other, Relation::Equal, Operand::Claim(claim)) => {
                if let Some(value) = literal(other) {
                    self.set(model, *claim, value);
                }
            }
            // What is absent is not something else. The rest is left to the answer.
            Condition::True
            | Condition::Not(_)
            | Condition::Compare(..)
            | Condition::Text(..)
            | Condition::Within(_) => {}
        }
    }

    fn claim(&mut self, model: &PolicyModel, claim: ClaimRef, test: &Test) {
        let string = |text: &str| ClaimJson::String(text.to_owned());
        let of_peer = |part: fn(&MeshPeer) -> &String| self.peer.as_ref().map(|peer| string(part(peer)));
        let value = match test {
            Test::Present => Some(string("something")),
            Test::OneOf(values) => values.first().map(|value| string(value)),
            Test::Integer(number) => Some(ClaimJson::Integer(*number)),
            Test::Boolean(boolean) => Some(ClaimJson::Boolean(*boolean)),
            Test::Glob(glob) => Some(string(&glob.replace('*', ""))),
            Test::Contains(text) => Some(ClaimJson::List(vec![string(text)])),
            Test::PeerNamespace => of_peer(|peer| &peer.namespace),
            Test::PeerServiceAccount => of_peer(|peer| &peer.service_account),
            Test::Same(other) => match (self.get(model, *other), self.get(model, claim)) {
                (Some(known), _) => Some(known),
                (None, Some(known)) => return self.set(model, *other, known),
                (None, None) => None,
            },
            Test::Listed(directory) | Test::ListedOrStale(directory) => {
                let name = model.directories.get(usize::from(*directory));
                if let Some(name) = name.filter(|name| !self.directories.contains(*name)) {
                    self.directories.push(name.clone());
                    self.notes.push(format!("`{name}` is taken to list it"));
                }
                Some(string(LISTED))
            }
        };
        if let Some(value) = value {
            self.set(model, claim, value);
        }
    }

    fn get(&self, model: &PolicyModel, claim: ClaimRef) -> Option<ClaimJson> {
        let issuer = model.issuers.get(usize::from(claim.issuer))?;
        let (first, rest) = issuer.slots.get(usize::from(claim.slot))?.split_first()?;
        let token = self.tokens.iter().find(|token| token.issuer == issuer.name)?;
        let member = |value: &ClaimJson, step: &String| match value {
            ClaimJson::Map(members) => members.get(step).cloned(),
            _ => None,
        };
        rest.iter().try_fold(token.claims.get(first)?.clone(), |value, step| member(&value, step))
    }

    fn set(&mut self, model: &PolicyModel, claim: ClaimRef, value: ClaimJson) {
        let Some(issuer) = model.issuers.get(usize::from(claim.issuer)) else { return };
        let Some(path) = issuer.slots.get(usize::from(claim.slot)) else { return };
        if let Some(token) = self.tokens.iter_mut().find(|token| token.issuer == issuer.name) {
            token.set_at(path, value);
        }
    }
}

fn literal(operand: &Operand) -> Option<ClaimJson> {
    match operand {
        Operand::Text(text) => Some(ClaimJson::String(text.clone())),
        Operand::Integer(number) => Some(ClaimJson::Integer(*number)),
        Operand::Boolean(boolean) => Some(ClaimJson::Boolean(*boolean)),
        _ => None,
    }
}
