//! What the compiler has to say about rules: stable codes, exact places, and what to do about it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A finding about the sources.
///
/// The order of fields is the order in which findings are sorted: by place first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// The file, as the caller of the compiler named it.
    pub file: String,
    /// Counted from 1; 0 where the finding is about no line of a file.
    pub line: u32,
    /// Counted from 1, in characters; 0 where the finding is about no line of a file.
    pub column: u32,
    /// Stable; programs may rely on it.
    pub code: Code,
    /// Whether it stops the compilation.
    pub severity: Severity,
    /// The object, e.g. ``AccessRule `sales/orders` ``, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Path of the field, e.g. `spec.from[0].peer.namespace`; empty for a whole file or document.
    pub field: String,
    /// What is wrong: lower case, no final period, values in backticks.
    pub message: String,
    /// Why it is refused or reported.
    pub why: String,
    /// What to write instead.
    pub fix: String,
    /// Other places that the finding is about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
}

/// Another place that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Related {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
    /// Counted from 1, in characters.
    pub column: u32,
    /// What is there.
    pub message: String,
}

/// Whether a finding stops the compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is compiled.
    Error,
    /// Compiled as written, but it may not be what was meant.
    Warning,
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $severity:ident, $title:literal;)*) => {
        /// What kind of finding it is. [`Code::as_str`] is stable; codes are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// One line about it, for reference pages.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Whether findings of this kind stop the compilation.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    FileTooLarge = "TG0101", Error, "A file is larger than is read.";
    MalformedYaml = "TG0102", Error, "A document is not well-formed YAML.";
    LimitExceeded = "TG0103", Error, "A file has more documents, nodes or levels than are read.";
    DuplicateKey = "TG0104", Error, "A mapping has the same key twice.";
    YamlFeature = "TG0105", Error, "A YAML feature that rules do not use: tags, merge keys, keys that are not strings.";
    EnvironmentUnset = "TG0106", Error, "A `${env.name}` has no value.";
    EnvironmentMalformed = "TG0107", Error, "A `${` is not a well-formed reference to an environment value.";
    UnknownField = "TG0201", Error, "A field that does not exist.";
    MissingField = "TG0202", Error, "A field that must be written is missing.";
    WrongType = "TG0203", Error, "A value of another type than the field's.";
    AmbiguousScalar = "TG0204", Error, "An unquoted value that YAML readers take for different things.";
    UnknownValue = "TG0205", Error, "A value that is not one of the field's.";
    NullValue = "TG0206", Error, "A field without a value.";
    UnknownKind = "TG0207", Error, "A document that is not an object of a known kind and version.";
    EmptyList = "TG0208", Error, "A list without entries: it would never match.";
    EmptyValue = "TG0209", Error, "An empty string or mapping.";
    NotExactlyOne = "TG0210", Error, "Exactly one of several fields must be written.";
    MalformedValue = "TG0211", Error, "A value that is not well formed.";
    DuplicateObject = "TG0301", Error, "Two objects of the same kind, namespace and name.";
    WrongNamespace = "TG0302", Error, "A namespace is missing, or there where none may be.";
    MeshCount = "TG0303", Error, "There must be exactly one Mesh.";
    SystemNamespace = "TG0304", Error, "A system namespace is never a target.";
    UnknownReference = "TG0305", Error, "A reference to an object that does not exist.";
    OutOfScope = "TG0306", Error, "A reference that this namespace may not make.";
    IssuerConflict = "TG0307", Error, "Two TrustedIssuers claim the same tokens.";
    ReservedName = "TG0308", Error, "A name that only revocations have.";
    CallerTooLarge = "TG0309", Error, "A Caller of more forms, items or bytes than can be revoked.";
    RolloutConflict = "TG0310", Error, "Two Guards of a workload declare different rollouts.";
    PeerNotStated = "TG0401", Error, "An entry must say who the peer is.";
    TokenRequired = "TG0402", Error, "An entry that names nobody without a token.";
    AnyoneTooWide = "TG0403", Error, "`anyone` needs exact methods and paths.";
    TokenTwice = "TG0404", Error, "Two tokens of one entry have the same issuer or name.";
    UnknownClaim = "TG0405", Error, "A claim that tokens of this issuer do not have.";
    ClaimType = "TG0406", Error, "A claim is compared with a value of another type.";
    NoTenant = "TG0407", Error, "A shared issuer without a condition on the tenant.";
    WrongPack = "TG0408", Error, "Claims of another pack than the issuer's.";
    PatternInExactValue = "TG0409", Error, "A `*` where values are compared exactly.";
    AmbiguousPath = "TG0410", Error, "A path that can be read in more than one way.";
    MalformedHost = "TG0411", Error, "A host that no request has.";
    MalformedMethod = "TG0412", Error, "A method that no request has.";
    MalformedGrpc = "TG0413", Error, "A gRPC service or method that no request has.";
    MalformedKeys = "TG0414", Error, "Keys of an issuer that cannot be used.";
    ReservedClaim = "TG0415", Error, "A claim that is checked for every token, not by rules.";
    AssertedClaim = "TG0416", Error, "A claim that the caller or a stranger can choose.";
    MalformedCondition = "TG0417", Error, "A condition that cannot be read, or that is about something else than it may be.";
    ConditionTooCostly = "TG0430", Error, "Conditions of a rule that would take too long to evaluate.";
    MalformedPattern = "TG0431", Error, "A regular expression that cannot be used.";
    UnknownInCatalogue = "TG0440", Error, "A service, action, role or host that the catalogue does not have.";
    NameNeverMatches = "TG0441", Error, "A name that no resource of the actions has.";
    NoPlaintext = "TG0442", Error, "Resources at a workload that does not see requests to the service.";
    NotSupported = "TG0501", Error, "Not supported by this version.";
    NeedsBody = "TG0510", Error, "A rule that is narrower than can be enforced without reading bodies.";
    NeverAllowed = "TG0511", Error, "A method that no rule can allow.";
    EncodingFailed = "TG0601", Error, "The rules of a workload cannot be encoded.";
    Unfinished = "TG0602", Error, "The compiler gave up without saying why: a defect of the compiler.";
    NotGuarded = "TG0901", Warning, "Rules target a workload that no Guard covers.";
    TargetsNothing = "TG0902", Warning, "An object that targets no workload.";
    RenameableClaim = "TG0903", Warning, "A claim whose value can pass to somebody else.";
    DefaultAccount = "TG0904", Warning, "An account that unrelated workloads share.";
    RepeatedValue = "TG0905", Warning, "The same value twice in a list.";
    WiderThanItLooks = "TG0906", Warning, "An entry that lets in more than it seems to.";
    AudienceOutsideCeiling = "TG0907", Warning, "Tokens meant for this Guard are never accepted from an issuer.";
    AmbiguousIssuer = "TG0908", Warning, "An issuer name that other clusters have too.";
    IssuerRetires = "TG0909", Warning, "An issuer whose tokens are refused soon, or already.";
    AnyAudience = "TG0910", Warning, "A Guard at which callers choose for whom their tokens may be meant.";
    ShadowedRule = "TG0920", Warning, "An Allow whose requests a Deny refuses wholly.";
    DuplicateRule = "TG0921", Warning, "A rule whose requests another rule of its effect matches wholly.";
    NeverMatches = "TG0922", Warning, "A rule whose demands contradict each other.";
    EvadedDeny = "TG0923", Warning, "A Deny that callers evade by leaving a token out.";
    PatternNotAnchored = "TG0930", Warning, "A regular expression of an Allow that matches anywhere in a text.";
    RuleOver = "TG0931", Warning, "A rule whose time is over.";
    ManySeries = "TG0940", Warning, "Rules that make more time series than are kept.";
}

// === impl Code ===

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    /// Whether it stops the compilation.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    /// One line: place, severity, code, object, field, what, why, fix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:{}:", self.line, self.column)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}[{}]: ", self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "`{}`: ", self.field)?;
        }
        write!(f, "{}; {}; {}", self.message, self.why, self.fix)
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_unique_and_in_order() {
        for pair in Code::ALL.windows(2) {
            assert!(pair[0].as_str() < pair[1].as_str(), "{} before {}", pair[0], pair[1]);
        }
    }
}
