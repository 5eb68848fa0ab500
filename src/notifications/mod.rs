//! Telling applications and people what happens: outgoing webhooks.
//!
//! Nothing that changes the state of a run or of traffic knows of them. The sealer of the audit trail makes notifications of
//! the events that it seals, in its own transaction: so each event is told of once, in order, and only if it was committed.

mod deliver;
mod endpoints;
mod events;
mod message;
mod outbox;
mod seal;

pub(crate) use deliver::Deliver;
pub use deliver::KIND as DELIVERY_JOB;
pub use endpoints::{
    Endpoint, EndpointSettings, Form, delete, endpoint, endpoint_for_change, endpoints, insert, rotate,
    shortened, update,
};
pub use events::Kind;
pub use message::NotificationSettings;
pub(crate) use outbox::revive;
pub use outbox::{Attempt, Delivery, DeliveryStatus, deliveries, expire, redeliver, test};
pub(crate) use seal::{Sealer, schedule};
