//! The catalogue: which request does what to which resource, for the services that rules may name as such.
//!
//! Data, not code: one YAML file per service in `control-plane/compiler/catalogue/` (its README describes the format and
//! where it comes from), embedded, and read once, when a rule first names the service.
//!
//! INVARIANT: what is not in the catalogue is not allowed by any rule on resources.
//!
//! INVARIANT: every file is well formed. A test reads all of them; were one not, the service could not be named at all.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

mod also;
mod data;
mod template;

pub use data::InvalidCatalogue;
pub use template::{InvalidTemplate, Part, Template};

/// A service: its hosts and its methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// As rules name it.
    pub name: String,
    /// Where it is; `None`: wherever the operator runs it, and the rule says where.
    pub hosts: Option<Vec<HostForm>>,
    /// First segments of paths that are never the name of a bucket.
    pub reserved_first_segments: Vec<String>,
    /// What it can be asked.
    pub methods: Vec<Method>,
}

/// A host name in which parts may be open: `{location}-pubsub.googleapis.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostForm(String);

/// One method, over HTTP, gRPC or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method {
    /// Unique in its service, and begins with a name of the service.
    pub name: String,
    /// Its class.
    pub action: Action,
    /// IAM permissions that it needs, as a label for people; nothing is decided on them.
    pub permissions: Vec<String>,
    /// How the permissions are known.
    pub permission_source: PermissionSource,
    /// What is special about it.
    pub flags: Vec<Flag>,
    /// Its requests over HTTP.
    pub bindings: Vec<Binding>,
    /// The same over gRPC.
    pub grpc: Option<Grpc>,
    /// The kind of resource, e.g. `pubsub.topic`.
    pub resource_type: String,
    /// Whether one resource is named, or all of a parent.
    pub scope: Scope,
    /// The canonical name that rules match: `*` is one segment, `**` one or more.
    pub pattern: Vec<String>,
    /// What else the same request may name.
    pub also: Vec<Also>,
}

/// A class of methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Data or metadata, nothing changes. Pull, acknowledge and extending a deadline are what one consumer does.
    Read,
    /// Content or state of what exists changes.
    Write,
    /// Containers, schemas, access and keys.
    Admin,
    /// Code, SQL or credentials of the caller's choice run under another identity.
    Launch,
}

/// How the permissions of a method are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PermissionSource {
    /// From a published map.
    Dataset,
    /// Looked up by hand.
    Curated,
    /// Concluded from similar methods.
    Inferred,
    /// It needs none.
    NoneNeeded,
    /// Not known.
    Unknown,
    /// It depends on what the request carries.
    Opaque,
}

/// What is special about a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Flag {
    /// The resource is only in the first message of the stream.
    FirstMessage,
    /// Any later message may name another resource.
    EveryMessage,
    /// The body says which of several things is done.
    BodyDecidesAction,
    /// The body names resources.
    BodyDecidesResources,
    /// A handle that the server made stands for the resource.
    OpaqueId,
    /// The same, of a session.
    SessionBound,
    /// Several methods share one HTTP binding.
    HttpAmbiguous,
    /// One request carries many, or another protocol.
    TunnelsRequests,
    /// Never without reading what it carries.
    DenyUnlessParsed,
    /// The answer is a token or key: a way around every other rule.
    MintsCredentials,
    /// The resource's name is inside a `bytes` field.
    NestedBytes,
    /// Goes on for long.
    LongLived,
    /// The connection changes its protocol.
    Upgrade,
    /// A credential is in the query.
    CredentialInQuery,
    /// A credential is in the body.
    CredentialInBody,
    /// It changes what exists, and may create what does not.
    CanCreate,
}

/// Whether one resource is named, or all of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// One.
    Item,
    /// All of a parent, which the name ends with: `projects/p/topics`.
    Collection,
}

/// One HTTP request that calls the method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The HTTP method.
    pub verb: String,
    /// The path.
    pub path: Template,
    /// The host, where it names a part of the resource: `{bucket}.storage.googleapis.com`.
    pub host: Option<HostForm>,
    /// The request is this method's only if a query parameter of these is there (of several with `partNumber`: all).
    pub query_has: Vec<String>,
    /// The request is this method's only if this header is there, `name` or `name: value`.
    pub header_has: Vec<String>,
    /// The resource's name, part by part.
    pub resource: Vec<NamePart>,
}

/// A part of a resource's name, as a request carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamePart {
    /// These characters.
    Literal(String),
    /// What the request says.
    Variable {
        /// Where it says so.
        from: Source,
        /// It may be several segments of the name: an object's name holds slashes.
        many: bool,
    },
}

/// Where a request carries a part of a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// In the path: a variable of the template, and which of its segments.
    Path(String, usize),
    /// A query parameter; what counts if it is absent.
    Query(String, Option<String>),
    /// A query parameter, or else this field of the body.
    QueryElseBody(String, String),
    /// A header.
    Header(String),
    /// A label of the host.
    Host,
    /// A field of the body.
    Body(String),
    /// A field of the body, and what counts if it is absent; or in any case, which nobody knows.
    BodyElse(String, String),
    /// A field of the body or a query parameter.
    BodyOrQuery(String),
    /// In a message: numbers of fields, and which open segment of what it holds.
    Message(Vec<u32>, usize),
}

/// A method over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// `package.Service`.
    pub service: String,
    /// The method.
    pub method: String,
    /// One message or a stream, in which direction.
    pub streaming: Streaming,
    /// What of the request message names the resource: field, and its numbers from the message's root down.
    pub fields: BTreeMap<String, Vec<u32>>,
    /// The ways in which the message names the resource, of which it may use one. Not those by a handle.
    pub names: Vec<MessageName>,
}

/// One way in which a message names a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageName {
    /// The name, part by part.
    pub parts: Vec<NamePart>,
    /// The fields that hold it, and how many parts each of them is; no numbers: it is in no field.
    pub spans: Vec<(Vec<u32>, usize)>,
}

/// One message or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Streaming {
    /// One message each.
    Unary,
    /// One message to the server, a stream back.
    Server,
    /// A stream to the server.
    Client,
    /// Streams both ways.
    Bidi,
}

/// A further resource, identity or switch that the same request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Also {
    /// What it is for, e.g. `source` or `runAs`.
    pub role: String,
    /// The kind of resource.
    pub kind: String,
    /// Where it is.
    pub from: AlsoFrom,
    /// The field, parameter or header; of [`AlsoFrom::Path`] and [`AlsoFrom::Grpc`] the name's template. May be empty.
    pub path: String,
    /// In the gRPC message: numbers of fields from the root down; empty where that is not known.
    pub fields: Vec<u32>,
    /// In the gRPC message, a whole name.
    pub name: Option<MessageName>,
}

/// Where a request carries something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AlsoFrom {
    /// In the body, over HTTP and gRPC.
    Body,
    /// In the query; over gRPC in the message.
    Query,
    /// In either.
    BodyOrQuery,
    /// In a header.
    Header,
    /// In the path.
    Path,
    /// In the gRPC message.
    Grpc,
}

/// What has to be read of a request to know that it is this method on that resource, and on no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// Method, host, path, query and headers.
    Method,
    /// The body, too.
    Body,
    /// It cannot be known: no rule allows it.
    Never,
}

macro_rules! files {
    ($($name:literal)*) => {
        /// Name and text of every service.
        const FILES: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../catalogue/", $name, ".yaml"))),)*];
    };
}

files! {
    "artifactregistry" "artifactregistry-docker" "bigquery" "bigquerystorage" "bigtable" "bigtableadmin" "dataflow"
    "dataflow-windmill" "datapipelines" "gitlab" "iamcredentials" "kubernetes" "pubsub" "spanner" "storage" "sts"
}

type Read = OnceLock<Result<Service, InvalidCatalogue>>;

static SERVICES: [Read; FILES.len()] = [const { OnceLock::new() }; FILES.len()];

/// The names of all services, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The service of this name; `None` if the catalogue does not have it.
pub fn service(name: &str) -> Option<Result<&'static Service, &'static InvalidCatalogue>> {
    let (&(_, text), read) = FILES.iter().zip(&SERVICES).find(|((known, _), _)| *known == name)?;
    Some(read.get_or_init(|| data::read(text)).as_ref())
}

// === impl Service ===

impl Service {
    /// Methods that an action stands for: of its class, or those whose name ends with it.
    pub fn methods_of<'s>(&'s self, action: &str) -> impl Iterator<Item = &'s Method> {
        let class = Action::parse(action);
        self.methods.iter().filter(move |method| match class {
            Some(class) => method.action == class,
            None => method.is_called(action),
        })
    }
}

// === impl HostForm ===

impl HostForm {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// As it is written, `{name}` for what is open.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole name, where nothing is open.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains('{')).then_some(self.0.as_str())
    }

    /// The same with `*` for what is open.
    pub fn glob(&self) -> String {
        let mut glob = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            glob.push_str(before);
            glob.push('*');
            rest = after.split_once('}').map_or("", |(_, after)| after);
        }
        glob.push_str(rest);
        glob
    }
}

// === impl Method ===

impl Method {
    /// Whether it has this flag.
    pub fn is(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether no rule can allow it.
    pub fn is_never_allowed(&self) -> bool {
        [Flag::TunnelsRequests, Flag::DenyUnlessParsed, Flag::NestedBytes, Flag::Upgrade]
            .into_iter()
            .any(|flag| self.is(flag))
    }

    /// Whether the classes `read`, `write`, … stand for it. What is a way around other rules is only allowed by name.
    pub fn in_classes(&self) -> bool {
        !self.is(Flag::MintsCredentials)
    }

    /// Whether this is its name, or the end of its name: `publish` or `topics.publish`.
    pub fn is_called(&self, name: &str) -> bool {
        self.name.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    }

    /// What has to be read to allow it over HTTP on one resource. `None`: it is not there.
    pub fn http_precision(&self) -> Option<Precision> {
        self.bindings.iter().map(|binding| self.binding_precision(binding)).min()
    }

    fn binding_precision(&self, binding: &Binding) -> Precision {
        if self.is_never_allowed() || self.is(Flag::HttpAmbiguous) || !binding.is_decidable() {
            return Precision::Never;
        }
        let in_body =
            |also: &Also| matches!(also.from, AlsoFrom::Body | AlsoFrom::BodyOrQuery) && !also.only_narrows();
        let named_in_body = binding.resource.iter().any(|part| match part {
            NamePart::Literal(_) => false,
            NamePart::Variable { from, .. } => {
                matches!(from, Source::Body(_) | Source::BodyElse(..) | Source::BodyOrQuery(_))
            }
        });
        if named_in_body || self.also.iter().any(in_body) { Precision::Body } else { Precision::Method }
    }

    /// The same over gRPC, where messages name everything.
    pub fn grpc_precision(&self) -> Option<Precision> {
        self.grpc.as_ref().map(|_| if self.is_never_allowed() { Precision::Never } else { Precision::Body })
    }

    /// What has to be read at least, whichever way it is called.
    pub fn precision(&self) -> Precision {
        [self.http_precision(), self.grpc_precision()].into_iter().flatten().min().unwrap_or(Precision::Never)
    }
}

// === impl Binding ===

impl Binding {
    /// Whether what the request is does not hang on keys of the query that nobody can list: sub-resources of the XML
    /// surface of Cloud Storage are such keys, and an unknown one makes another method of the same request.
    pub fn is_decidable(&self) -> bool {
        !self.is_xml()
    }

    /// Whether it is on the XML surface of Cloud Storage: the path begins with a bucket or an object.
    pub fn is_xml(&self) -> bool {
        self.host.is_some()
            || match self.path.parts() {
                [] => true,
                [Part::Variable { name, .. }, ..] => name == "bucket",
                _ => false,
            }
    }
}

// === impl Action ===

impl Action {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Admin, Self::Launch];

    /// As rules write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
            Self::Launch => "launch",
        }
    }

    /// The class of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Grpc ===

impl Grpc {
    /// `/package.Service/Method`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }
}

#[cfg(test)]
mod tests;
