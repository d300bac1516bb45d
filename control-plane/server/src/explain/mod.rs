//! Says why: about tokens, about requests, and about refusals that somebody saw.

pub mod access;
pub mod cloud;
pub mod curl;
pub mod persona;
pub mod reasons;
pub mod refusal;
pub mod report;
pub mod request;
pub mod token;
