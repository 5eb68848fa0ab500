//! What a new model shows before it meets traffic: its answers to a few prompts, and a comparison with the live model.
//!
//! Everything here but [`sample`] and [`store`] is pure. The step `evaluate` of a run asks the models and keeps their answers
//! as they come, so that what was answered is not asked, and paid for, again.

mod judge;
mod question;
mod result;
mod sample;
mod smoke;
mod store;

pub use judge::{Judgement, judgement, question_for_judge};
pub use question::{Question, QuestionError};
pub use result::{Compared, Evaluation, JudgeComparison, LossComparison, SmokeFault, SmokeTest};
pub use sample::sample;
pub use smoke::{Fault, fault};
pub use store::{
    Answer, Usage, answers, count_call, found, keep_answer, keep_evaluation, keep_judgement, usage,
};
