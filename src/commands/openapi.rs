//! `tuneloop openapi`: the OpenAPI document of the API.

use std::io::{self, Write};

use clap::Args;

use super::Failure;
use crate::api;

/// Print the OpenAPI document of the API
#[derive(Args, Debug)]
pub(super) struct OpenApi {}

impl OpenApi {
    pub(super) fn run(self) -> Result<(), Failure> {
        let document = api::openapi().to_pretty_json()?;
        writeln!(io::stdout(), "{document}")?;
        Ok(())
    }
}
