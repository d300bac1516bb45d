//! Says why.

pub mod token;
