//! The user's own posts, from a CSV file, plain or compressed by gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use chrono::{DateTime, NaiveDateTime, Utc};
use csv::{Reader, ReaderBuilder, StringRecord};
use flate2::bufread::MultiGzDecoder;

use super::post::Post;

const REQUIRED: [&str; 5] = ["original_input", "hook", "body", "engagement_rate", "created_at"];

/// Who a post belongs to, by the first of these columns that the file has.
const PERSONA: [&str; 2] = ["persona_id", "story_id"];

/// How gzip files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// A file of posts that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostsError {
    #[error("cannot read the posts in {file}")]
    Read { file: String, source: io::Error },
    #[error(
        "{file} has no column {column:?}: a file of posts begins with a line of names, among them {}",
        REQUIRED.join(", ")
    )]
    Column { file: String, column: &'static str },
    #[error("{file}, line {line}: {fault}")]
    Row { file: String, line: u64, fault: String },
    #[error("{file} has no posts: it holds nothing below the line of names")]
    Empty { file: String },
    #[error("{file} has a time that cannot be moved to now: its posts are too far apart")]
    Times { file: String },
}

/// Reads all posts of a file. The first row that cannot be used ends it: left out silently, it would be missed.
pub(super) fn read(path: &Path) -> Result<Vec<Post>, PostsError> {
    let file = path.display().to_string();
    let unreadable = |source| PostsError::Read { file: file.clone(), source };
    let mut bytes = BufReader::new(File::open(path).map_err(unreadable)?);
    if bytes.fill_buf().map_err(unreadable)?.starts_with(&GZIP) {
        parse(&file, MultiGzDecoder::new(bytes))
    } else {
        parse(&file, bytes)
    }
}

fn parse(file: &str, bytes: impl Read) -> Result<Vec<Post>, PostsError> {
    let mut reader = ReaderBuilder::new().from_reader(bytes);
    let columns = Columns::find(file, &mut reader)?;
    let mut posts = Vec::new();
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| unreadable(file, error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let post = columns.post(&record);
        posts.push(post.map_err(|fault| PostsError::Row { file: file.to_owned(), line, fault })?);
    }
    if posts.is_empty() {
        return Err(PostsError::Empty { file: file.to_owned() });
    }
    Ok(posts)
}

fn unreadable(file: &str, error: csv::Error) -> PostsError {
    let file = file.to_owned();
    let line = error.position().map(csv::Position::line);
    match (error.into_kind(), line) {
        (csv::ErrorKind::UnequalLengths { expected_len, len, .. }, Some(line)) => {
            let fault = format!("it has {len} fields, but the line of names has {expected_len}");
            PostsError::Row { file, line, fault }
        }
        (csv::ErrorKind::Utf8 { .. }, Some(line)) => {
            PostsError::Row { file, line, fault: "it is not valid UTF-8: save the file as UTF-8".into() }
        }
        (csv::ErrorKind::Io(source), _) => PostsError::Read { file, source },
        (kind, _) => PostsError::Read { file, source: io::Error::other(format!("{kind:?}")) },
    }
}

/// Where the columns of a post are.
struct Columns {
    original_input: usize,
    hook: usize,
    body: usize,
    engagement_rate: usize,
    created_at: usize,
    persona: Option<usize>,
}

impl Columns {
    fn find(file: &str, reader: &mut Reader<impl Read>) -> Result<Self, PostsError> {
        let names = reader.headers().map_err(|error| unreadable(file, error))?;
        let position = |wanted: &str| names.iter().position(|name| name.trim() == wanted);
        let required =
            |column| position(column).ok_or_else(|| PostsError::Column { file: file.to_owned(), column });
        let [original_input, hook, body, engagement_rate, created_at] = REQUIRED;
        Ok(Self {
            original_input: required(original_input)?,
            hook: required(hook)?,
            body: required(body)?,
            engagement_rate: required(engagement_rate)?,
            created_at: required(created_at)?,
            persona: PERSONA.into_iter().find_map(position),
        })
    }

    /// The post of a row, or what is wrong with it.
    fn post(&self, record: &StringRecord) -> Result<Post, String> {
        if record.iter().any(|field| field.contains('\0')) {
            return Err("it contains a NUL character, which Postgres does not take".into());
        }
        let text = |column: usize| record.get(column).unwrap_or_default();
        Ok(Post {
            persona_id: self.persona.map(text).filter(|id| !id.is_empty()).map(str::to_owned),
            original_input: text(self.original_input).to_owned(),
            hook: text(self.hook).to_owned(),
            body: text(self.body).to_owned(),
            engagement_rate: rate(text(self.engagement_rate).trim())?,
            created_at: time(text(self.created_at).trim())?,
        })
    }
}

/// A rate that is not known is an empty field.
fn rate(text: &str) -> Result<Option<f64>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0);
    rate.map(Some).ok_or_else(|| format!("engagement_rate is {text:?}: it takes a number such as 0.063"))
}

/// RFC 3339, and what Postgres writes; without an offset it is UTC.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    let with_offset = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"))
        .map(|time| time.to_utc());
    let time = with_offset.or_else(|_| {
        let plain = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"));
        plain.map(|time| time.and_utc())
    });
    time.map_err(|_| format!("created_at is {text:?}: it takes a time such as 2026-11-25T20:15:00Z"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const RESEARCH: &str = "id,story_id,original_input,hook,body,impressions,clicks,engagement_rate,created_at\n\
        1,s1,,\"A \"\"hook\"\"\",\"<p>Two\n\nlines</p>\",100,7,0.070000,2013-01-26T05:24:20Z\n";
    const OWN: &str = "created_at,persona_id,original_input,hook,body,engagement_rate\n\
        2026-11-25 20:15:00.5+00,p1,About cats,Cats,Long,0.08\n\
        2026-11-25 22:15:00+02,,About cats,Cats,Long,\n\
        2026-11-25 20:15:00,p3,x,y,z,1e-2\n";

    fn fault(text: &str) -> String {
        parse("posts.csv", text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn columns_are_found_by_name_and_newlines_in_quotes_stay() {
        let posts = parse("posts.csv", RESEARCH.as_bytes()).unwrap();
        let expected = Post {
            persona_id: Some("s1".into()),
            original_input: String::new(),
            hook: "A \"hook\"".into(),
            body: "<p>Two\n\nlines</p>".into(),
            engagement_rate: Some(0.07),
            created_at: DateTime::parse_from_rfc3339("2013-01-26T05:24:20Z").unwrap().to_utc(),
        };
        assert_eq!(posts, [expected]);
    }

    #[test]
    fn a_dump_of_the_table_is_read_as_postgres_writes_it() {
        let posts = parse("posts.csv", OWN.as_bytes()).unwrap();
        let utc = |text| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        assert_eq!(posts[0].created_at, utc("2026-11-25T20:15:00.5Z"));
        assert_eq!(posts[1].created_at, utc("2026-11-25T20:15:00Z"));
        assert_eq!(posts[2].created_at, utc("2026-11-25T20:15:00Z"));
        let personas: Vec<_> = posts.iter().map(|post| post.persona_id.as_deref()).collect();
        assert_eq!(personas, [Some("p1"), None, Some("p3")]);
        assert_eq!([posts[1].engagement_rate, posts[2].engagement_rate], [None, Some(0.01)]);
    }

    #[test]
    fn gzip_is_known_by_its_content_and_plain_text_by_its_lack() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, packed) = (directory.path().join("a.gz"), directory.path().join("b.csv"));
        std::fs::write(&plain, RESEARCH).unwrap();
        let mut encoder = GzEncoder::new(File::create(&packed).unwrap(), Compression::fast());
        encoder.write_all(RESEARCH.as_bytes()).unwrap();
        encoder.finish().unwrap();
        assert_eq!(read(&plain).unwrap(), read(&packed).unwrap());
        let cut = std::fs::read(&packed).unwrap();
        std::fs::write(&packed, &cut[..cut.len() / 2]).unwrap();
        assert!(matches!(read(&packed), Err(PostsError::Read { .. })));
        assert!(matches!(read(&directory.path().join("none.csv")), Err(PostsError::Read { .. })));
    }

    #[test]
    fn a_missing_column_is_named() {
        for column in REQUIRED {
            let text = fault(&OWN.replacen(column, "other", 1));
            assert!(text.starts_with(&format!("posts.csv has no column {column:?}")), "{text}");
        }
        assert!(parse("posts.csv", OWN.replacen("persona_id", "other", 1).as_bytes()).is_ok());
    }

    #[test]
    fn a_bad_value_is_told_with_its_line_behind_quoted_newlines_too() {
        let row = "2,s2,a,b,c,1,1,RATE,TIME\n";
        let with = |rate: &str, time: &str| {
            fault(&format!("{RESEARCH}{}", row.replace("RATE", rate).replace("TIME", time)))
        };
        let now = "2013-01-26T05:24:20Z";
        for rate in ["many", "-0.1", "NaN", "inf", "6%"] {
            let text = with(rate, now);
            assert!(text.starts_with(&format!("posts.csv, line 5: engagement_rate is {rate:?}")), "{text}");
        }
        for time in ["", "yesterday", "2013-13-01T00:00:00Z", "2013-01-26"] {
            let text = with("0.1", time);
            assert!(text.starts_with(&format!("posts.csv, line 5: created_at is {time:?}")), "{text}");
        }
        let short = fault(&format!("{RESEARCH}2,s2,a\n"));
        assert!(short.starts_with("posts.csv, line 5: it has 3 fields"), "{short}");
        let nul = fault(&format!("{RESEARCH}2,s2,a\0,b,c,1,1,0.1,{now}\n"));
        assert!(nul.starts_with("posts.csv, line 5: it contains a NUL"), "{nul}");
    }

    #[test]
    fn text_in_another_encoding_is_refused_with_its_line() {
        let mut bytes = RESEARCH.as_bytes().to_vec();
        bytes.extend(b"2,s2,caf\xe9,b,c,1,1,0.1,2013-01-26T05:24:20Z\n");
        let text = parse("posts.csv", &*bytes).unwrap_err().to_string();
        assert!(text.starts_with("posts.csv, line 5: it is not valid UTF-8"), "{text}");
    }

    #[test]
    fn a_file_without_rows_is_refused() {
        assert!(fault(OWN.lines().next().unwrap()).contains("has no posts"));
        assert!(fault("").contains("has no column"));
    }

    #[test]
    fn the_real_posts_are_read_whole() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/posts_2013.csv.gz");
        if !file.exists() {
            return;
        }
        let posts = read(&file).unwrap();
        let good = posts.iter().filter(|post| post.engagement_rate.is_some_and(|rate| rate >= 0.06));
        assert_eq!((posts.len(), good.count()), (5_506, 179));
    }
}
