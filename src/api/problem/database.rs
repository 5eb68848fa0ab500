//! Database errors as callers see them.

use axum::http::StatusCode;

use super::Problem;

/// What is wrong on the way to the database may be right in a moment; everything else is our fault.
/// Violations of constraints that a caller can cause are for the endpoint to map before they come here.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match kind(&error) {
            Kind::Unavailable => Self::unavailable("The database cannot be reached; try again soon.", &error),
            Kind::Contended => {
                Self::unavailable("Another request was changing the same thing; try again.", &error)
            }
            Kind::BadText => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unstorable-text",
                "A text of the request cannot be stored",
            )
            .detail("A text of the request contains the character NUL (U+0000); leave it out."),
            Kind::BadTime => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unstorable-time",
                "A time of the request cannot be stored",
            )
            .detail("A time of the request is outside of the calendar that the database knows."),
            Kind::Internal => Self::internal(&error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Unavailable,
    Contended,
    BadText,
    BadTime,
    Internal,
}

fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => {
            Kind::Unavailable
        }
        sqlx::Error::Database(error) => error.code().map_or(Kind::Internal, |code| kind_of_code(&code)),
        _ => Kind::Internal,
    }
}

/// SQLSTATE codes, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn kind_of_code(code: &str) -> Kind {
    match code {
        // connection lost; too many connections; shutting down, crashed, starting up; out of memory or disk
        code if code.starts_with("08") || code.starts_with("53") => Kind::Unavailable,
        "57P01" | "57P02" | "57P03" => Kind::Unavailable,
        // serialization failure, deadlock, lock not available, cancelled by a time limit
        "40001" | "40P01" | "55P03" | "57014" => Kind::Contended,
        // a text with NUL, in a text or a jsonb column
        "22021" | "22P05" => Kind::BadText,
        // a time out of range
        "22008" => Kind::BadTime,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_database_out_of_reach_is_503_with_a_time_to_retry() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        for error in [sqlx::Error::PoolTimedOut, sqlx::Error::Io(refused)] {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(RETRY_AFTER));
        }
    }

    #[test]
    fn everything_else_is_500() {
        assert_eq!(Problem::from(sqlx::Error::RowNotFound).status(), StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[test]
    fn codes_tell_a_passing_trouble_from_a_fault() {
        let kinds = ["57P03", "53300", "08006", "40P01", "22021", "23505", "42P01"];
        let kinds = kinds.map(kind_of_code);
        assert_eq!(
            kinds,
            [
                Kind::Unavailable,
                Kind::Unavailable,
                Kind::Unavailable,
                Kind::Contended,
                Kind::BadText,
                Kind::Internal,
                Kind::Internal
            ]
        );
    }
}
