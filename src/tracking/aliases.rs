//! The two names that are moved from version to version: which is live, and which is under test.

use super::job::Stop;
use super::look::Look;
use super::record::name_of;
use super::versions::Told;
use super::wire::Alias;
use crate::halt;

/// Names, and the status of the version that each points at.
const ALIASES: [(&str, &str); 2] = [("champion", "live"), ("challenger", "testing")];

impl Look<'_> {
    /// Points each alias at its version, and takes it away where there is none. Other aliases are nobody's business here.
    pub(super) async fn aliases(&self, had: &[Alias], versions: &[Told]) -> Result<(), Stop> {
        let model = name_of(self.pipeline);
        for (alias, status) in ALIASES {
            halt::point("tracking", "alias");
            let wanted = versions.iter().find(|version| version.status == status);
            let wanted = wanted.and_then(|version| version.mlflow_version.as_deref());
            let is = had.iter().find(|had| had.alias == alias).map(|had| had.version.as_str());
            match wanted {
                wanted if wanted == is => {}
                Some(version) => self.client.set_alias(&model, alias, version).await?,
                None => self.client.delete_alias(&model, alias).await?,
            }
        }
        Ok(())
    }
}
