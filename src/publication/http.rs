//! A call of the application: the traffic document as the body of a POST, signed after Standard Webhooks.
//!
//! What was accepted cannot be read back. The document has the revision, and receivers ignore an older one than they have.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::CONTENT_TYPE;

use super::payload::Payload;
use super::{PublishError, Reach};
use crate::causes;
use crate::clock::Clock;
use crate::outbound::{NotPublic, Targets, retry_after};
use crate::pipelines::config::HttpTarget;
use crate::standard_webhooks::WebhookSecret;

const CALL: Duration = Duration::from_secs(15);

/// Sends the document and waits for the application to accept it. `id` is the same when the same is sent again.
pub(super) async fn send(
    reach: &Reach,
    targets: &Targets,
    clock: &Clock,
    target: &HttpTarget,
    id: &str,
    payload: &Payload,
) -> Result<(), PublishError> {
    let url = Url::parse(&target.url)
        .map_err(|error| PublishError::failed(format!("{} is no URL: {error}", target.url)))?;
    let host = url.host_str().unwrap_or_default().to_owned();
    let secret = target.secret_env.as_deref().map(|name| secret(reach, name)).transpose()?;
    let client = targets.client(&url).map_err(|refused| PublishError::failed(refused.to_string()))?;
    let timestamp = clock.now().timestamp().to_string();
    let mut request = client
        .post(url)
        .timeout(CALL)
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", &timestamp);
    if let Some(secret) = secret {
        let signature = secret.sign(id, &timestamp, payload.document.as_bytes());
        request = request.header("webhook-signature", signature);
    }
    let response = request.body(payload.document.clone()).send().await.map_err(|error| {
        // The URL may hold a password, which does not belong into logs.
        let error = error.without_url();
        tracing::info!(%error, host, "a publication could not be sent");
        told(&host, &error)
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(PublishError::Failed {
        message: format!("{host} answered {} in place of a success", status.as_u16()),
        retry_after: retry_after(response.headers(), clock),
    })
}

fn secret(reach: &Reach, name: &str) -> Result<WebhookSecret, PublishError> {
    let value = (reach.lookup)(name).ok_or_else(|| {
        PublishError::failed(format!(
            "the variable {name} is not set where the workers run; set it to the signing secret"
        ))
    })?;
    WebhookSecret::new(value.expose()).map_err(|accepted| {
        PublishError::failed(format!("the variable {name} is not a signing secret; it takes {accepted}"))
    })
}

/// Why there was no answer, in one sentence.
fn told(host: &str, error: &reqwest::Error) -> PublishError {
    if let Some(refused) = NotPublic::cause_of(error) {
        return PublishError::failed(refused.to_string());
    }
    if error.is_timeout() {
        return PublishError::failed(format!("{host} did not answer in time"));
    }
    PublishError::failed(format!("{host} cannot be reached: {}", causes::last(error)))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};

    use super::*;
    use crate::outbound::TargetRules;

    /// Knows one address, whatever the name.
    struct Leads(SocketAddr);

    impl Resolve for Leads {
        fn resolve(&self, _: Name) -> Resolving {
            let address = self.0;
            Box::pin(async move { Ok(Box::new([address].into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_told_as_such() {
        let resolver = Arc::new(Leads(SocketAddr::from(([10, 0, 0, 1], 0))));
        let targets = Targets::with_resolver(TargetRules::default(), CALL, resolver).unwrap();
        let url = Url::parse("http://app.example/").unwrap();
        let error = targets.client(&url).unwrap().post(url.clone()).send().await.unwrap_err();
        let refused = told("app.example", &error).to_string();
        assert!(
            refused.starts_with("app.example is not a public address")
                && refused.contains("--allow-private-targets"),
            "{refused}"
        );
    }
}
