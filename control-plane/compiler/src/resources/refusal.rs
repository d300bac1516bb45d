//! What is said about entries on resources that cannot be enforced, or that mean nothing.

use std::collections::BTreeSet;
use std::fmt;

use super::Wanted;
use super::bind::Obstacle;
use crate::catalogue::{Action, Also, AlsoFrom, Flag, Grpc, Method, Service};
use crate::diagnostic::Code;
use crate::place::{Findings, Place};
use crate::suggest;

/// What a method lacks to be allowed as the rule has it.
pub(super) struct Lack<'m> {
    method: &'m Method,
    /// Why its name cannot be told over HTTP.
    name: BTreeSet<Obstacle>,
    /// What the body may name, unstated.
    open: Vec<&'m Also>,
    /// A second resource in the path, which is read.
    source: Option<&'m Also>,
    /// The message names the resource.
    message_name: Option<&'m Grpc>,
    /// What the message may name besides.
    message: Vec<&'m Also>,
    /// Roles that the rule says and the method does not have.
    missing: Vec<&'static str>,
}

// === impl Lack ===

impl<'m> Lack<'m> {
    pub(super) fn new(method: &'m Method) -> Self {
        Self {
            method,
            name: BTreeSet::new(),
            open: Vec::new(),
            source: None,
            message_name: None,
            message: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.has_http() && self.has_grpc()
    }

    /// Nothing is lacking over HTTP.
    pub(super) fn has_http(&self) -> bool {
        self.name.is_empty() && self.open.is_empty() && self.source.is_none() && self.missing.is_empty()
    }

    /// Nothing is lacking over gRPC.
    pub(super) fn has_grpc(&self) -> bool {
        self.message_name.is_none() && self.message.is_empty() && self.source.is_none()
    }

    /// A name cannot be told over HTTP.
    pub(super) fn name(&mut self, obstacles: BTreeSet<Obstacle>) {
        self.name.extend(obstacles);
    }

    /// The body may name something else, too.
    pub(super) fn open(&mut self, also: &'m Also) {
        self.open.push(also);
    }

    /// The path names a second resource, which is read.
    pub(super) fn source(&mut self, also: &'m Also) {
        self.source = Some(also);
    }

    /// The message names the resource.
    pub(super) fn message_name(&mut self, grpc: &'m Grpc) {
        self.message_name = Some(grpc);
    }

    /// The message may name something else, too.
    pub(super) fn message(&mut self, also: &'m Also) {
        self.message.push(also);
    }

    /// The method has nothing that the rule says these of.
    pub(super) fn missing(&mut self, roles: Vec<&'static str>) {
        self.missing = roles;
    }

    /// What is lacking, in clauses.
    fn reasons(&self) -> String {
        let mut reasons: Vec<String> = self.name.iter().map(Obstacle::to_string).collect();
        if !self.missing.is_empty() {
            reasons.push(format!("it names no {}", suggest::list(self.missing.iter().copied())));
        }
        if !self.open.is_empty() {
            reasons.push(format!("it names {} in its body", listed(&self.open)));
        }
        if let Some(also) = self.source {
            let place = if also.from == AlsoFrom::Path { "path" } else { "message" };
            reasons.push(format!("it reads another resource, the `{}` in its {place}", also.role));
        }
        if let Some(grpc) = self.message_name {
            let fields: Vec<String> = grpc
                .fields
                .iter()
                .map(|(field, numbers)| {
                    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                    format!("`{field}`, field {}", numbers.join("."))
                })
                .collect();
            reasons.push(format!("over gRPC its message names the resource ({})", fields.join("; ")));
        }
        if !self.message.is_empty() {
            // Over HTTP the same has been said, or it is in the query.
            reasons.push(if self.has_http() {
                format!("over gRPC its message may name {}", listed(&self.message))
            } else {
                "over gRPC all of that is in its message".to_owned()
            });
        }
        reasons.join("; ")
    }

    fn why(&self) -> &'static str {
        if self.source.is_some() && self.open.is_empty() && self.name.is_empty() {
            "a right to write is none to read"
        } else {
            "so the rule would allow more than it says, or nothing at all"
        }
    }

    fn fix(&self, wanted: &Wanted<'_>) -> String {
        let mut steps = Vec::new();
        let in_message = self.message_name.is_some() || !self.message.is_empty();
        let over_http = in_message && !self.method.bindings.is_empty() && wanted.http;
        if over_http {
            steps.push("write `protocols: [http]`".to_owned());
        }
        let mut larger = Vec::new();
        if !self.name.is_empty() || (self.message_name.is_some() && (self.has_http() || !over_http)) {
            larger.push(format!("allow all of `{}`", self.method.pattern.join("/")));
        }
        if !self.missing.is_empty() {
            larger.push(format!("do not say {}", suggest::list(self.missing.iter().copied())));
        }
        if self.source.is_some() {
            larger.push("add `read` to `actions`".to_owned());
        }
        let roles: BTreeSet<&str> = self
            .open
            .iter()
            .chain(if over_http { &[][..] } else { self.message.as_slice() })
            .filter(|also| !also.only_narrows())
            .map(|also| also.role.as_str())
            .filter(|role| !wanted.unchecked.contains(role))
            .collect();
        if roles.contains("templateSuffix") {
            steps.push("end the table's name with `*`, which covers every suffix".to_owned());
        }
        if !roles.is_empty() {
            let roles: Vec<&str> = roles.into_iter().collect();
            larger.push(format!("leave open what else it names: `unchecked: [{}]`", roles.join(", ")));
        }
        if !larger.is_empty() {
            let larger = larger.join(" and ");
            // Without one of the steps the other does not help.
            if over_http && !self.has_http() {
                steps = vec![format!("write `protocols: [http]` and {larger}")];
            } else {
                steps.push(larger);
            }
        }
        steps.join(", or ")
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(parameter) => {
                write!(f, "a default counts where `{parameter}` is not said, or said elsewhere")
            }
            Self::EncodedSlash => f.write_str(
                "the name's slashes are sent encoded, and wildcards among them cannot be told apart",
            ),
            Self::Wildcards => f.write_str("wildcards before `**` cannot be told apart in one value"),
        }
    }
}

/// `role` and where it is, of the first few.
fn listed(alsos: &[&Also]) -> String {
    const SHOWN: usize = 4;
    let one = |also: &&Also| match also.path.as_str() {
        "" => format!("`{}`", also.role),
        path => format!("`{}` (`{path}`)", also.role),
    };
    let shown: Vec<String> = alsos.iter().take(SHOWN).map(one).collect();
    match alsos.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Reports what would be allowed more widely than it is written.
pub(super) fn cannot_be_enforced(
    place: &Place<'_>,
    wanted: &Wanted<'_>,
    lacks: &[Lack<'_>],
    findings: &mut Findings,
) {
    let others: Vec<String> = wanted
        .methods
        .iter()
        .map(|(method, _)| &method.name)
        .filter(|name| !lacks.iter().any(|lack| lack.method.name == **name))
        .cloned()
        .collect();
    for lack in lacks {
        let by_name =
            wanted.methods.iter().any(|(method, by_name)| method.name == lack.method.name && *by_name);
        let mut fix = lack.fix(wanted);
        if !by_name && !others.is_empty() {
            let others = suggest::some_of(&others);
            fix = format!("{fix}, or name the other methods instead of their class: {others}");
        }
        findings.add(
            place,
            Code::NeedsBody,
            format!("`{}` cannot be allowed this narrowly: {}", lack.method.name, lack.reasons()),
            lack.why(),
            fix,
        );
    }
    if lacks.is_empty() && wanted.methods.is_empty() {
        findings.add(
            place,
            Code::NeverAllowed,
            "no method that can be allowed is left",
            "classes do not stand for methods that carry other requests or credentials",
            "name the methods that are meant",
        );
    }
}

/// A method that is written by its name is not called over the protocols that the rule names.
pub(super) fn not_over_protocol(place: &Place<'_>, method: &Method, findings: &mut Findings) {
    let (why, fix) = if method.is(Flag::HttpAmbiguous) {
        ("over HTTP several methods are the same request", "write `protocols: [grpc]`")
    } else if method.bindings.is_empty() {
        ("it is there over gRPC only", "add `grpc` to `protocols`, or leave the method out")
    } else {
        ("it is there over HTTP only", "add `http` to `protocols`, or leave the method out")
    };
    let protocol = if method.bindings.is_empty() || method.is(Flag::HttpAmbiguous) { "HTTP" } else { "gRPC" };
    findings.add(
        place,
        Code::NeverAllowed,
        format!("`{}` is not allowed over {protocol}", method.name),
        why,
        fix,
    );
}

/// The service has no such action.
pub(super) fn unknown_action(place: &Place<'_>, service: &Service, action: &str, findings: &mut Findings) {
    let mut known: BTreeSet<&str> = Action::ALL.into_iter().map(Action::as_str).collect();
    for method in &service.methods {
        let name = method.name.as_str();
        for (at, _) in name.rmatch_indices('.').take(2) {
            known.extend(name.get(at..).and_then(|end| end.strip_prefix('.')));
        }
    }
    findings.add(
        place,
        Code::UnknownInCatalogue,
        format!("`{}` has no action or method `{action}`", service.name),
        "what is not in the catalogue is never allowed",
        match suggest::closest(action, known.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => "write `read`, `write`, `admin` or `launch`, or the end of a method's name, e.g. `topics.publish`"
                .to_owned(),
        },
    );
}

/// No rule can allow the method.
pub(super) fn never_allowed(place: &Place<'_>, method: &Method, findings: &mut Findings) {
    let why = if method.is(Flag::TunnelsRequests) || method.is(Flag::DenyUnlessParsed) {
        "one request carries others, which nobody checks"
    } else if method.is(Flag::HttpAmbiguous) {
        "several methods are the same request"
    } else if method.bindings.iter().any(crate::catalogue::Binding::is_xml) {
        "a key of the query that nobody knows makes another method of the same request"
    } else {
        "what it names cannot be read"
    };
    findings.add(
        place,
        Code::NeverAllowed,
        format!("`{}` is never allowed", method.name),
        why,
        if method.name.starts_with("storage.xml.") {
            "use the JSON surface, e.g. `objects.get`"
        } else {
            "allow the methods that it stands for"
        },
    );
}

/// A name that no chosen method is about.
pub(super) fn name_never_matches(
    place: &Place<'_>,
    service: &Service,
    actions: &[String],
    findings: &mut Findings,
) {
    let patterns: BTreeSet<String> = actions
        .iter()
        .flat_map(|action| service.methods_of(action))
        .map(|method| method.pattern.join("/"))
        .filter(|pattern| !pattern.starts_with("**"))
        .collect();
    let patterns: Vec<String> = patterns.into_iter().collect();
    findings.add(
        place,
        Code::NameNeverMatches,
        "no resource of these actions has such a name",
        "the entry would never match",
        format!("their names are like {}", suggest::some_of(&patterns)),
    );
}

/// An action that is about nothing that the rule names.
pub(super) fn action_never_matches(
    place: &Place<'_>,
    action: &str,
    methods: &[&Method],
    findings: &mut Findings,
) {
    let patterns: BTreeSet<String> = methods.iter().map(|method| method.pattern.join("/")).collect();
    let patterns: Vec<String> = patterns.into_iter().collect();
    findings.add(
        place,
        Code::NameNeverMatches,
        format!("`{action}` is about none of `names`"),
        "the action would never match",
        format!("its resources have names like {}", suggest::some_of(&patterns)),
    );
}

/// Whether the body of a request can name what a Deny is about.
pub(super) fn names_in_body(also: &Also) -> bool {
    !matches!(also.from, AlsoFrom::Path)
}
