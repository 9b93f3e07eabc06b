//! The routes for events.

use kafka_courier::events::validate_topic_name;

use super::failure::Failure;
use super::percent::decode_text;
use super::problem::Problem;

/// A route for events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// `/v1/events`: events, whose types have topics.
    Events,
    /// `/v1/topics/{topic}`: a record for this topic.
    Topic(String),
}

impl Route {
    /// Finds the route of a request.
    ///
    /// # Errors
    ///
    /// [`Problem::NotFound`], [`Problem::MethodNotAllowed`] or [`Problem::TopicName`].
    pub fn find(method: &str, path: &str) -> Result<Self, Failure> {
        let route = if path == "/v1/events" {
            Self::Events
        } else if let Some(topic) = path.strip_prefix("/v1/topics/").filter(|topic| !topic.contains('/')) {
            let name = decode_text(topic.as_bytes()).unwrap_or_default();
            validate_topic_name(&name).map_err(|error| Failure::new(Problem::TopicName, error.to_string()))?;
            Self::Topic(name)
        } else {
            let why = "no such route: publish to /v1/events or /v1/topics/{topic}";
            return Err(Failure::new(Problem::NotFound, why));
        };
        match method {
            "POST" => Ok(route),
            _ => Err(Failure::new(Problem::MethodNotAllowed, "this route has the method POST")),
        }
    }

    /// Returns the route's pattern, a label of metrics.
    pub fn pattern(&self) -> &'static str {
        match self {
            Self::Events => "/v1/events",
            Self::Topic(_) => "/v1/topics/{topic}",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_found() {
        assert_eq!(Route::find("POST", "/v1/events"), Ok(Route::Events));
        assert_eq!(Route::find("POST", "/v1/topics/a%2Db"), Ok(Route::Topic("a-b".to_owned())));
        for (method, path, problem) in [
            ("GET", "/v1/events", Problem::MethodNotAllowed),
            ("POST", "/v1/events/", Problem::NotFound),
            ("POST", "/v1/topics/a/b", Problem::NotFound),
            ("POST", "/v1/topics/", Problem::TopicName),
            ("POST", "/v1/topics/a%2Fb", Problem::TopicName),
            ("POST", "/v1/topics/%zz", Problem::TopicName),
        ] {
            assert_eq!(Route::find(method, path).unwrap_err().problem, problem, "{method} {path}");
        }
    }
}
