//! What is compared.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tidegate_compiler::{Compiled, TrustedIssuer};
use tidegate_identity::PackKind;

use super::Finding;
use super::callers::{Caller, Form};
use super::manifests::{AWS, AZURE, Account, Annotation, GOOGLE, Seen, Spot, Workload};

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Code {
    /// A manifest that cannot be read.
    #[serde(rename = "AL000")]
    Unreadable,
    /// A Caller names an account that no ServiceAccount has.
    #[serde(rename = "AL001")]
    NoSuchAccount,
    /// An annotation gives an account another cloud identity than its Callers name.
    #[serde(rename = "AL002")]
    OtherIdentity,
    /// An annotation gives an account a cloud identity, and its Callers name none.
    #[serde(rename = "AL003")]
    UnnamedIdentity,
    /// A Caller demands a cloud identity that no annotation gives its account.
    #[serde(rename = "AL004")]
    NoAnnotation,
    /// The tokens that a pod projects are for audiences that nobody accepts.
    #[serde(rename = "AL005")]
    WrongAudience,
    /// A projected token lives longer than its issuer's tokens may.
    #[serde(rename = "AL006")]
    TooLong,
    /// A Caller needs a token, and the pod projects none.
    #[serde(rename = "AL007")]
    NoToken,
    /// The pod has only the default token, whose audience is not accepted.
    #[serde(rename = "AL008")]
    DefaultToken,
    /// Two Callers are the same account.
    #[serde(rename = "AL009")]
    SharedAccount,
}

// === impl Code ===

impl Code {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "AL000",
            Self::NoSuchAccount => "AL001",
            Self::OtherIdentity => "AL002",
            Self::UnnamedIdentity => "AL003",
            Self::NoAnnotation => "AL004",
            Self::WrongAudience => "AL005",
            Self::TooLong => "AL006",
            Self::NoToken => "AL007",
            Self::DefaultToken => "AL008",
            Self::SharedAccount => "AL009",
        }
    }

    const fn severity(self) -> &'static str {
        match self {
            Self::UnnamedIdentity | Self::NoAnnotation | Self::SharedAccount => "warning",
            _ => "error",
        }
    }

    pub(super) fn at(
        self,
        spot: &Spot,
        object: &str,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding {
            file: spot.file.clone(),
            line: spot.line,
            code: self,
            severity: self.severity(),
            object: object.to_owned(),
            what: what.into(),
            why: why.into(),
            fix: fix.into(),
        }
    }
}

/// An account, `(namespace, name)`.
type AccountId<'a> = (&'a str, &'a str);

struct Checker<'a> {
    seen: &'a Seen,
    callers: &'a [Caller],
    compiled: &'a Compiled,
    /// Forms by the accounts that they name.
    by_account: BTreeMap<AccountId<'a>, Vec<(&'a Caller, &'a Form)>>,
    /// Audiences that some Guard accepts; `None`: one accepts the request's host, whatever that is.
    accepted: Option<BTreeSet<&'a str>>,
    findings: Vec<Finding>,
}

pub(super) fn check(seen: &Seen, callers: &[Caller], compiled: &Compiled) -> Vec<Finding> {
    let mut by_account: BTreeMap<AccountId<'_>, Vec<(&Caller, &Form)>> = BTreeMap::new();
    for caller in callers {
        for form in &caller.forms {
            for account in &form.accounts {
                by_account.entry((&account.namespace, &account.account)).or_default().push((caller, form));
            }
        }
    }
    let guards = compiled.workloads.values().flat_map(|policy| &policy.model.guards);
    let accepted: Option<Vec<&Vec<String>>> = guards.map(|guard| guard.audiences.as_ref()).collect();
    let accepted = accepted.map(|lists| lists.into_iter().flatten().map(String::as_str).collect());
    let mut checker = Checker { seen, callers, compiled, by_account, accepted, findings: Vec::new() };
    checker.callers();
    seen.accounts.iter().for_each(|account| checker.account(account));
    seen.workloads.iter().for_each(|workload| checker.workload(workload));
    checker.findings
}

// === impl Checker ===

impl Checker<'_> {
    fn callers(&mut self) {
        let seen: BTreeSet<AccountId<'_>> = self
            .seen
            .accounts
            .iter()
            .map(|account| (account.namespace.as_str(), account.name.as_str()))
            .collect();
        let mut first: BTreeMap<AccountId<'_>, &str> = BTreeMap::new();
        for caller in self.callers {
            for named in caller.forms.iter().flat_map(|form| &form.accounts) {
                let id = (named.namespace.as_str(), named.account.as_str());
                let object = format!("Caller {}", caller.name);
                // Every namespace has the account `default`.
                if self.seen.namespaces.contains(&named.namespace)
                    && !seen.contains(&id)
                    && named.account != "default"
                {
                    let others = seen
                        .iter()
                        .filter(|(namespace, _)| *namespace == named.namespace)
                        .map(|(_, name)| *name);
                    let close = others.min_by_key(|name| strsim::damerau_levenshtein(name, &named.account));
                    let close = close.filter(|name| strsim::damerau_levenshtein(name, &named.account) <= 4);
                    let fix = match close {
                        Some(close) => format!("did you mean `{close}`?"),
                        None => "create the ServiceAccount, or name another one".to_owned(),
                    };
                    self.findings.push(Code::NoSuchAccount.at(
                        &named.spot,
                        &object,
                        format!("no ServiceAccount `{}/{}` is there", named.namespace, named.account),
                        "nobody can be this caller, until somebody creates an account of that name and is it",
                        fix,
                    ));
                }
                match first.get(&id) {
                    Some(other) if *other != caller.name => self.findings.push(Code::SharedAccount.at(
                        &named.spot,
                        &object,
                        format!("`{}/{}` is the Caller `{other}` as well", named.namespace, named.account),
                        "whoever runs as the account is both, and may do what either may",
                        "give each its own account, or make one Caller of the two",
                    )),
                    Some(_) => {}
                    None => drop(first.insert(id, &caller.name)),
                }
            }
        }
    }

    fn account(&mut self, account: &Account) {
        let Some(forms) = self.by_account.get(&(account.namespace.as_str(), account.name.as_str())) else {
            return;
        };
        let object = format!("ServiceAccount {}/{}", account.namespace, account.name);
        let callers: BTreeSet<&str> = forms.iter().map(|(caller, _)| caller.name.as_str()).collect();
        let callers = format!("`{}`", callers.into_iter().collect::<Vec<_>>().join("`, `"));
        for annotation in &account.annotations {
            let pack = pack_of(annotation.name);
            let named = || {
                // All forms of its Callers: the account may be named in one, and the cloud's identity in another.
                let forms = forms.iter().flat_map(|(caller, _)| &caller.forms);
                forms
                    .flat_map(|form| &form.tokens)
                    .flat_map(|token| &token.identities)
                    .filter(|(of, ..)| *of == pack)
            };
            if named().any(|(_, identity, _)| is_same(annotation, identity)) {
                continue;
            }
            let others: BTreeSet<&str> = named().map(|(_, identity, _)| identity.as_str()).collect();
            let what = format!("`{}` gives it `{}`", annotation.name, annotation.value);
            self.findings.push(match others.is_empty() {
                false => Code::OtherIdentity.at(
                    &annotation.spot,
                    &object,
                    format!("{what}, and {callers} name `{}`", others.into_iter().collect::<Vec<_>>().join("`, `")),
                    "tokens of the pods are those of the annotation's identity, and no rule that names the other lets them in",
                    "correct the annotation, or the Caller",
                ),
                true => Code::UnnamedIdentity.at(
                    &annotation.spot,
                    &object,
                    format!("{what}, and {callers} name no such identity"),
                    "what the pods send with it to others is not this caller's for the rules",
                    "add a token of that identity to the Caller, or leave it where only the cloud looks at it",
                ),
            });
        }
        // The other way round: a form with this account and a cloud's identity that nothing gives it.
        for (caller, form) in forms {
            for (pack, identity, spot) in form.tokens.iter().flat_map(|token| &token.identities) {
                if account.annotations.iter().any(|annotation| pack_of(annotation.name) == *pack) {
                    continue;
                }
                self.findings.push(Code::NoAnnotation.at(
                    spot,
                    &format!("Caller {}", caller.name),
                    format!(
                        "pods of `{}/{}` need a token of `{identity}`, and the ServiceAccount has no annotation `{}`",
                        account.namespace,
                        account.name,
                        annotation_of(pack)
                    ),
                    "without it the pods get no token of that identity by themselves",
                    format!("annotate the ServiceAccount ({}:{}), or leave this where the token comes from elsewhere", account.spot.file, account.spot.line),
                ));
            }
        }
    }

    fn workload(&mut self, workload: &Workload) {
        let forms = self.by_account.get(&(workload.namespace.as_str(), workload.account.as_str()));
        let issuer = |form: &&Form| {
            form.tokens.iter().find_map(|token| {
                let declared = self.compiled.issuers.iter().find(|issuer| issuer.name == token.issuer)?;
                (declared.pack == PackKind::Kubernetes).then_some(declared)
            })
        };
        let needed = forms.into_iter().flatten().find_map(|(caller, form)| Some((*caller, issuer(form)?)));
        let Some((caller, issuer)) = needed else { return };
        let accepts = |audience: &str| {
            let is_in_ceiling =
                issuer.audiences.as_ref().is_none_or(|list| list.iter().any(|one| one == audience));
            is_in_ceiling && self.accepted.as_ref().is_none_or(|accepted| accepted.contains(audience))
        };
        // Without an audience the token is for the API server, which is its issuer.
        let default = issuer.issuers.first().map(String::as_str).unwrap_or_default();
        let fits = |audience: &Option<String>| accepts(audience.as_deref().unwrap_or(default));
        let good: Vec<_> = workload.tokens.iter().filter(|token| fits(&token.audience)).collect();
        let needs = format!("the Caller `{}` needs a token of `{}`", caller.name, issuer.name);
        let wanted = self.wanted(issuer);
        let mut found = Vec::new();
        for token in &good {
            if token.expiration_s > u64::from(issuer.max_lifetime_s) {
                found.push(Code::TooLong.at(
                    &token.spot,
                    &workload.object,
                    format!("the projected token lives {} s", token.expiration_s),
                    format!(
                        "tokens of `{}` may live {} s at most, and are refused otherwise",
                        issuer.name, issuer.max_lifetime_s
                    ),
                    format!("write `expirationSeconds: {}`", issuer.max_lifetime_s),
                ));
            }
        }
        let account = self
            .seen
            .accounts
            .iter()
            .find(|account| account.namespace == workload.namespace && account.name == workload.account);
        let mounts =
            workload.automount.or_else(|| account.and_then(|account| account.automount)).unwrap_or(true);
        let project = format!("project a token with `audience: {wanted}`");
        match (good.is_empty(), workload.tokens.first()) {
            (false, _) => {}
            (true, Some(first)) => {
                let audiences: Vec<&str> = workload
                    .tokens
                    .iter()
                    .map(|token| token.audience.as_deref().unwrap_or(default))
                    .collect();
                found.push(Code::WrongAudience.at(
                    &first.spot,
                    &workload.object,
                    format!("projected tokens are for `{}`", audiences.join("`, `")),
                    format!("{needs}, and no Guard accepts that audience"),
                    project,
                ));
            }
            (true, None) if mounts && fits(&None) => {}
            (true, None) if mounts => found.push(Code::DefaultToken.at(
                &workload.spot,
                &workload.object,
                "the pod has only the default token",
                format!("{needs}, and the default token is for the API server (`{default}`)"),
                project,
            )),
            (true, None) => found.push(Code::NoToken.at(
                &workload.spot,
                &workload.object,
                "the pod projects no token",
                format!("{needs}, and every request without it is refused"),
                project,
            )),
        }
        self.findings.extend(found);
    }

    /// An audience that would be accepted.
    fn wanted(&self, issuer: &TrustedIssuer) -> String {
        let accepted = self.accepted.iter().flatten().copied();
        let in_ceiling = |audience: &&str| {
            issuer.audiences.as_ref().is_none_or(|list| list.iter().any(|one| one == audience))
        };
        accepted
            .filter(in_ceiling)
            .collect::<Vec<_>>()
            .first()
            .map_or("the Guard's".to_owned(), |one| (*one).to_owned())
    }
}

fn pack_of(annotation: &str) -> &'static str {
    match annotation {
        GOOGLE => "google",
        AWS => "aws",
        _ => "entra",
    }
}

fn annotation_of(pack: &str) -> &'static str {
    match pack {
        "google" => GOOGLE,
        "aws" => AWS,
        _ => AZURE,
    }
}

fn is_same(annotation: &Annotation, identity: &str) -> bool {
    match annotation.name {
        // A role is its ARN, or its name, of whatever account.
        AWS => annotation.value == identity || annotation.value.rsplit('/').next() == Some(identity),
        _ => annotation.value.eq_ignore_ascii_case(identity),
    }
}
