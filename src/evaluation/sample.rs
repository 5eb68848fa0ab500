//! Some lines of a dataset, spread evenly over it.

use futures_util::StreamExt;

use super::Question;
use crate::dataset::{DatasetError, DatasetStore};

/// Up to `wanted` questions from a dataset of `examples` lines, in their order. The same dataset gives the same ones. The first line,
/// with the highest engagement, is always among them.
pub async fn sample(
    datasets: &DatasetStore,
    digest: &str,
    examples: u64,
    wanted: u32,
) -> Result<Vec<Question>, DatasetError> {
    let wanted = u64::from(wanted).min(examples);
    let mut lines = (0..wanted).map(|place| place * examples / wanted + 1).peekable();
    let (_, mut chunks) = datasets.stream(digest).await?;
    let (mut questions, mut pending, mut line) = (Vec::new(), Vec::new(), 1);
    // To the end, because only then it is known that the bytes are those that were written.
    while let Some(chunk) = chunks.next().await.transpose()? {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let is_wanted = lines.peek() == Some(&line);
            if is_wanted {
                pending.extend_from_slice(piece);
            }
            if piece.last() != Some(&b'\n') {
                continue;
            }
            if is_wanted {
                let number = i64::try_from(line).unwrap_or(i64::MAX);
                let question = Question::read(number, &pending);
                questions.push(question.map_err(|_| DatasetError::Altered(digest.to_owned()))?);
                pending.clear();
                lines.next();
            }
            line += 1;
        }
    }
    Ok(questions)
}
