//! The problems of the API as responses of its OpenAPI document, each defined once under
//! `components/responses` and referred to from the operations.
//!
//! What every operation may answer is added by [`super::document`]. An endpoint names only what is particular to it:
//! `responses((status = 200, …), (status = 404, response = NotFound), (status = 409, response = Conflict))`.

use utoipa::ToResponse;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::problem::MEDIA_TYPE;

macro_rules! problems {
    ($($name:ident $description:literal)*) => {
        $(
            #[doc = $description]
            #[derive(Debug)]
            pub struct $name;

            impl<'r> ToResponse<'r> for $name {
                fn response() -> (&'r str, RefOr<Response>) {
                    (stringify!($name), problem($description).into())
                }
            }
        )*

        /// All of them, by name.
        pub(super) fn all() -> impl Iterator<Item = (&'static str, RefOr<Response>)> {
            [$($name::response()),*].into_iter()
        }
    };
}

problems! {
    Malformed "400: the request cannot be read, or its body is not JSON."
    Unauthorized "401: a valid API key is needed."
    Forbidden "403: the API key does not allow this."
    NotFound "404: there is no such resource."
    Conflict "409: the state of the resource does not allow this; `type` says why."
    PreconditionFailed "412: the resource is not at the version that `If-Match` names."
    BodyTooLarge "413: the body is too large."
    UnsupportedMediaType "415: the body is not sent as JSON."
    Invalid "422: fields of the request are not acceptable; `errors` names them."
    PreconditionRequired "428: the change needs `If-Match`."
    Internal "500: a fault of the service, logged with the request id."
    Unavailable "503: not available at the moment; try again after `Retry-After` seconds."
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content(MEDIA_TYPE, content).build()
}
