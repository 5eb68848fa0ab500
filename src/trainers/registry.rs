//! The configured providers, found by the name that a pipeline's configuration uses.

use uuid::Uuid;

use super::{
    Checkpoint, Completion, CompletionRequest, FileId, ModelState, OpenAiTrainer, ProviderJob, RejectReason,
    Result, Trainer, TrainerError, TrainingEvent, TrainingFile, TrainingRequest,
};

/// The names of all providers, whether configured or not.
pub const PROVIDERS: [&str; 2] = ["openai", "azure_openai"];

/// Any of the providers.
#[derive(Debug, Clone)]
pub enum AnyTrainer {
    /// OpenAI, Azure OpenAI, or another service that speaks their protocol.
    OpenAi(OpenAiTrainer),
}

/// The providers this process has credentials for.
#[derive(Debug, Clone, Default)]
pub struct Trainers {
    openai: Option<AnyTrainer>,
    azure_openai: Option<AnyTrainer>,
}

impl Trainers {
    /// No provider configured.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds OpenAI.
    #[must_use]
    pub fn with_openai(mut self, trainer: OpenAiTrainer) -> Self {
        self.openai = Some(AnyTrainer::OpenAi(trainer));
        self
    }

    /// Adds Azure OpenAI.
    #[must_use]
    pub fn with_azure_openai(mut self, trainer: OpenAiTrainer) -> Self {
        self.azure_openai = Some(AnyTrainer::OpenAi(trainer));
        self
    }

    /// The provider with this name. [`RejectReason::UnknownTrainer`] when there is none,
    /// [`RejectReason::TrainerNotConfigured`] when its key is not set.
    pub fn get(&self, provider: &str) -> Result<&AnyTrainer> {
        let (configured, variables) = match provider {
            "openai" => (&self.openai, "OPENAI_API_KEY"),
            "azure_openai" => (&self.azure_openai, "AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY"),
            unknown => {
                return Err(TrainerError::rejected(
                    RejectReason::UnknownTrainer,
                    format!(
                        "There is no trainer {unknown:?}; set the pipeline's trainer to one of: {}.",
                        PROVIDERS.join(", ")
                    ),
                ));
            }
        };
        configured.as_ref().ok_or_else(|| {
            let message =
                format!("The trainer {provider} has no key; set {variables} and start the service again.");
            TrainerError::rejected(RejectReason::TrainerNotConfigured, message)
        })
    }
}

impl Trainer for AnyTrainer {
    async fn upload(&self, file: TrainingFile) -> Result<FileId> {
        match self {
            Self::OpenAi(trainer) => trainer.upload(file).await,
        }
    }

    async fn find_file(&self, name: &str, bytes: u64) -> Result<Option<FileId>> {
        match self {
            Self::OpenAi(trainer) => trainer.find_file(name, bytes).await,
        }
    }

    async fn create(&self, request: &TrainingRequest) -> Result<ProviderJob> {
        match self {
            Self::OpenAi(trainer) => trainer.create(request).await,
        }
    }

    async fn find_jobs(&self, training_id: Uuid) -> Result<Vec<ProviderJob>> {
        match self {
            Self::OpenAi(trainer) => trainer.find_jobs(training_id).await,
        }
    }

    async fn poll(&self, job_id: &str) -> Result<ProviderJob> {
        match self {
            Self::OpenAi(trainer) => trainer.poll(job_id).await,
        }
    }

    async fn cancel(&self, job_id: &str) -> Result<ProviderJob> {
        match self {
            Self::OpenAi(trainer) => trainer.cancel(job_id).await,
        }
    }

    async fn events(&self, job_id: &str, after: Option<&str>) -> Result<Vec<TrainingEvent>> {
        match self {
            Self::OpenAi(trainer) => trainer.events(job_id, after).await,
        }
    }

    async fn checkpoints(&self, job_id: &str) -> Result<Vec<Checkpoint>> {
        match self {
            Self::OpenAi(trainer) => trainer.checkpoints(job_id).await,
        }
    }

    async fn is_ready(&self, file: &FileId) -> Result<bool> {
        match self {
            Self::OpenAi(trainer) => trainer.is_ready(file).await,
        }
    }

    async fn delete_file(&self, file: &FileId) -> Result<()> {
        match self {
            Self::OpenAi(trainer) => trainer.delete_file(file).await,
        }
    }

    async fn complete(&self, request: &CompletionRequest) -> Result<Completion> {
        match self {
            Self::OpenAi(trainer) => trainer.complete(request).await,
        }
    }

    async fn model(&self, model_id: &str) -> Result<Option<ModelState>> {
        match self {
            Self::OpenAi(trainer) => trainer.model(model_id).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(provider: &str) -> (RejectReason, String) {
        match Trainers::new().get(provider).expect_err("nothing is configured") {
            TrainerError::Rejected { reason, message } => (reason, message),
            error @ TrainerError::Retryable { .. } => panic!("a retry cannot help: {error}"),
        }
    }

    #[test]
    fn a_provider_without_a_key_names_the_variable_to_set() {
        let (reason, message) = refusal("openai");
        assert_eq!(reason, RejectReason::TrainerNotConfigured);
        assert!(message.contains("set OPENAI_API_KEY"), "{message}");
        let (reason, message) = refusal("azure_openai");
        assert_eq!(reason, RejectReason::TrainerNotConfigured);
        assert!(message.contains("set AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY"), "{message}");
    }

    #[test]
    fn an_unknown_provider_is_told_the_known_ones() {
        let (reason, message) = refusal("opnai");
        assert_eq!(reason, RejectReason::UnknownTrainer);
        assert!(message.contains("\"opnai\"") && message.contains("one of: openai"), "{message}");
    }

    #[test]
    fn every_listed_provider_is_known() {
        for provider in PROVIDERS {
            assert_eq!(refusal(provider).0, RejectReason::TrainerNotConfigured);
        }
    }
}
