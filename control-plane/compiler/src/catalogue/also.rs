//! What follows from the role of something that a request names besides its resource.

use super::Also;

// === impl Also ===

impl Also {
    /// Whether it can only make the request do less, or something that the method's class says anyway: a name inside the
    /// collection, a filter, a mask, a dry run.
    pub fn only_narrows(&self) -> bool {
        const ROLES: [&str; 11] = [
            "databaseRole", // Restricts a session of Spanner further.
            "dryRun",
            "generateName",
            "glob",
            "jobName",
            "name",
            "prefix",
            "requestedState", // Cancel, drain, resume: each is a `write` on the named job.
            "table",          // Of the database that the session belongs to.
            "updateMask",
            "validateOnly",
        ];
        ROLES.contains(&self.role.as_str())
    }

    /// Whether requests of the method mean nothing without it, or what nobody should leave to a default: a rule has to say
    /// something about it.
    pub fn is_needed(&self) -> bool {
        const ROLES: [&str; 12] = [
            "credential",
            "delegates",
            "launch",
            "nameInDdl",
            "preparedQuery",
            "runAs",
            "scope",
            "signedPolicy",
            "sql",
            "subjectToken",
            "subscription",
            "topic",
        ];
        ROLES.contains(&self.role.as_str())
    }

    /// Whether it is the account that something runs as: without one it is a default account.
    pub fn is_run_as(&self) -> bool {
        self.role == "runAs"
    }

    /// Whether it says the resource's own name again, if it is there.
    pub fn is_repeated_name(&self) -> bool {
        self.role == "destinationMetadata"
    }
}
