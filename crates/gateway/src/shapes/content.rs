//! The shape of a request's body by its content type.
//!
//! Rules:
//! - A content type is required, and is one that a page of another origin can't send without a preflight.
//! - A CloudEvent in binary mode has `ce-` headers, and any content type.

use super::failure::Failure;
use super::problem::Problem;

/// The shape of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// One event, or an array of events.
    Json,
    /// A line for each event.
    Ndjson,
    /// A CloudEvent as JSON.
    CloudEvent,
    /// The data of a CloudEvent, whose attributes are headers.
    CloudEventData,
    /// The value of a record.
    Value,
    /// One record as JSON, or an array of records.
    Records,
}

/// The encoding of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// gzip (RFC 1952).
    Gzip,
}

/// The content type of records as JSON.
pub const RECORDS: &str = "application/vnd.kafka-courier.records+json";

/// Content types that a form or a script of another origin sends without a preflight.
const SIMPLE: [&str; 3] = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"];

impl Shape {
    /// Returns the shape of a body for `/v1/events`. `is_cloud_event` says whether the request has the header
    /// `ce-specversion`.
    ///
    /// # Errors
    ///
    /// [`Problem::UnsupportedType`].
    pub fn of_events(content_type: Option<&str>, is_cloud_event: bool) -> Result<Self, Failure> {
        let media = content_type.map(media_type).unwrap_or_default();
        match &*media {
            "application/cloudevents+json" => Ok(Self::CloudEvent),
            _ if media.starts_with("application/cloudevents") => Err(unsupported(
                &media,
                "publish each CloudEvent by itself, as application/cloudevents+json or in binary mode",
            )),
            _ if is_cloud_event => Ok(Self::CloudEventData),
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            _ => {
                let remedy = "use application/json, application/x-ndjson or application/cloudevents+json";
                Err(unsupported(&media, remedy))
            }
        }
    }

    /// Returns the shape of a body for `/v1/topics/{topic}`.
    ///
    /// # Errors
    ///
    /// [`Problem::UnsupportedType`].
    pub fn of_record(content_type: Option<&str>) -> Result<Self, Failure> {
        let media = content_type.map(media_type).unwrap_or_default();
        if media == RECORDS {
            return Ok(Self::Records);
        }
        match media.is_empty() || SIMPLE.contains(&&*media) {
            true => {
                Err(unsupported(&media, "use application/octet-stream, application/json or another type of the value"))
            }
            false => Ok(Self::Value),
        }
    }
}

impl Encoding {
    /// Returns the encoding of a body.
    ///
    /// # Errors
    ///
    /// [`Problem::UnsupportedEncoding`].
    pub fn parse(content_encoding: Option<&str>) -> Result<Self, Failure> {
        let encoding = content_encoding.unwrap_or_default().trim().to_ascii_lowercase();
        match &*encoding {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            _ => Err(Failure::new(Problem::UnsupportedEncoding, "use content-encoding gzip, or none")),
        }
    }
}

fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn unsupported(media: &str, remedy: &str) -> Failure {
    let why = match media {
        "" => format!("the request has no content type: {remedy}"),
        _ => format!("content type {:?}: {remedy}", super::query::shortened(media)),
    };
    Failure::new(Problem::UnsupportedType, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_chooses_the_shape() {
        for (content_type, is_cloud_event, shape) in [
            ("application/json", false, Shape::Json),
            ("Application/JSON; charset=utf-8", false, Shape::Json),
            ("application/x-ndjson", false, Shape::Ndjson),
            ("application/cloudevents+json; charset=UTF-8", true, Shape::CloudEvent),
            ("application/json", true, Shape::CloudEventData),
            ("text/plain", true, Shape::CloudEventData),
        ] {
            assert_eq!(Shape::of_events(Some(content_type), is_cloud_event), Ok(shape), "{content_type}");
        }
        assert_eq!(Shape::of_events(None, true), Ok(Shape::CloudEventData));
        assert_eq!(Shape::of_record(Some("application/json")), Ok(Shape::Value));
        assert_eq!(Shape::of_record(Some(RECORDS)), Ok(Shape::Records));
    }

    #[test]
    fn types_without_preflight_are_refused() {
        for content_type in [None, Some("text/plain"), Some("multipart/form-data; boundary=x"), Some("")] {
            assert!(Shape::of_events(content_type, false).is_err() && Shape::of_record(content_type).is_err());
        }
        for content_type in ["application/cloudevents-batch+json", "application/cloudevents+avro", "application/xml"] {
            let refused = Shape::of_events(Some(content_type), false).unwrap_err();
            assert_eq!(refused.problem, Problem::UnsupportedType, "{content_type}");
        }
    }

    #[test]
    fn only_gzip_is_decoded() {
        assert_eq!(Encoding::parse(Some(" GZIP ")), Ok(Encoding::Gzip));
        assert_eq!(Encoding::parse(None), Ok(Encoding::Identity));
        assert_eq!(Encoding::parse(Some("gzip, gzip")).unwrap_err().problem, Problem::UnsupportedEncoding);
        assert_eq!(Encoding::parse(Some("br")).unwrap_err().problem, Problem::UnsupportedEncoding);
    }
}
