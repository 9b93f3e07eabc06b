//! Topics of event types: defaults, changes, and changes from several threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kafka_courier_event_model::{TopicMapping, TopicMappingProblem, TopicNameError};

fn topic(mapping: &TopicMapping, event_type: &str) -> String {
    mapping.topic_for(event_type).to_string()
}

#[test]
fn defaults_cover_every_type() {
    let mapping = TopicMapping::new();
    for (event_type, expected) in [
        ("user.logged_in", "user-events"),
        ("user.registered", "user-events"),
        ("user.logged_out", "user-events"),
        ("user.token_refreshed", "auth-events"),
        ("api.request", "api-events"),
        ("api.error", "error-events"),
        ("system.alert", "system-events"),
        ("order.placed", "default-events"),
        ("USER.LOGGED_IN", "default-events"),
        ("", "default-events"),
    ] {
        assert_eq!(topic(&mapping, event_type), expected, "{event_type}");
    }
}

#[test]
fn change_affects_its_type_alone() {
    let mapping = TopicMapping::new();
    mapping.set_topic_mapping("user.logged_in", "logins").unwrap();
    mapping.set_topic_mapping("order.placed", "orders").unwrap();
    assert_eq!(topic(&mapping, "user.logged_in"), "logins");
    assert_eq!(topic(&mapping, "order.placed"), "orders");
    assert_eq!(topic(&mapping, "user.registered"), "user-events");
    assert_eq!(topic(&mapping, "order.paid"), "default-events");
}

#[test]
fn star_matches_unmapped_types() {
    let mapping = TopicMapping::new();
    mapping.set_topic_mapping("*", "rest").unwrap();
    assert_eq!(topic(&mapping, "order.placed"), "rest");
    assert_eq!(topic(&mapping, "api.request"), "api-events");
}

#[test]
fn invalid_topic_changes_nothing() {
    let mapping = TopicMapping::new();
    let error = mapping.set_topic_mapping("api.request", "a b").unwrap_err();
    assert_eq!(
        error.to_string(),
        "topic mapping for type \"api.request\": topic name \"a b\" contains ' ': \
         only a-z, A-Z, 0-9, '.', '_' and '-' are allowed"
    );
    assert_eq!(topic(&mapping, "api.request"), "api-events");
}

#[test]
fn list_allows_spaces_around_names() {
    let mapping = TopicMapping::new();
    mapping.apply(" user.logged_in = logins,order.placed=orders ,\n* = rest").unwrap();
    assert_eq!(topic(&mapping, "user.logged_in"), "logins");
    assert_eq!(topic(&mapping, "order.placed"), "orders");
    assert_eq!(topic(&mapping, "x"), "rest");
    mapping.apply("  ").unwrap();
    assert_eq!(topic(&mapping, "x"), "rest");
}

#[test]
fn equal_problems_are_reported_once() {
    let error = TopicMapping::new().apply(",").unwrap_err();
    assert_eq!(error.problems, [TopicMappingProblem::NoEqualsSign { entry: String::new() }]);
    assert_eq!(TopicMapping::new().apply("a=b,a=b,a=b").unwrap_err().problems.len(), 1);
}

#[test]
fn invalid_list_reports_all_problems() {
    let mapping = TopicMapping::new();
    let error = mapping.apply("a=ok,b,=c,d=..,a=again,,e=").unwrap_err();
    assert_eq!(
        error.problems,
        [
            TopicMappingProblem::NoEqualsSign { entry: "b".into() },
            TopicMappingProblem::EmptyType { topic: "c".into() },
            TopicMappingProblem::Topic { event_type: "d".into(), reason: TopicNameError::Dots { name: "..".into() } },
            TopicMappingProblem::Twice { event_type: "a".into() },
            TopicMappingProblem::NoEqualsSign { entry: String::new() },
            TopicMappingProblem::Topic { event_type: "e".into(), reason: TopicNameError::Empty },
        ]
    );
    assert_eq!(error.to_string().matches("; ").count(), 5);
    assert_eq!(topic(&mapping, "a"), "default-events");
}

#[test]
fn concurrent_changes_all_count() {
    let mapping = TopicMapping::new();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let topic = topic(&mapping, "type-0-0");
                        assert!(topic == "default-events" || topic == "topic-0-0", "{topic}");
                        assert_eq!(self::topic(&mapping, "api.error"), "error-events");
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let mapping = &mapping;
                scope.spawn(move || {
                    for n in 0..100 {
                        let (event_type, topic) = (format!("type-{writer}-{n}"), format!("topic-{writer}-{n}"));
                        mapping.set_topic_mapping(&event_type, &topic).unwrap();
                        assert_eq!(&*mapping.topic_for(&event_type), topic);
                    }
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        assert!(written.into_iter().all(|result| result.is_ok()));
        assert!(readers.into_iter().all(|reader| reader.join().is_ok()));
    });
    for writer in 0..4 {
        for n in 0..100 {
            assert_eq!(topic(&mapping, &format!("type-{writer}-{n}")), format!("topic-{writer}-{n}"));
        }
    }
}

#[test]
fn the_most_specific_entry_holds() {
    let text = "user.*=people,user.logged_in=logins,user.log*=logs,*=others,order.*=orders";
    let reversed = text.split(',').rev().collect::<Vec<_>>().join(",");
    for entries in [text, &reversed] {
        let mapping = TopicMapping::new();
        mapping.apply(entries).unwrap();
        for (event_type, expected) in [
            ("user.logged_in", "logins"),
            ("user.logged_out", "logs"),
            ("user.registered", "people"),
            ("user.", "people"),
            ("user.of.ours", "people"),
            ("user", "others"),
            ("order.placed", "orders"),
            ("api.request", "api-events"),
            ("anything", "others"),
        ] {
            assert_eq!(topic(&mapping, event_type), expected, "{event_type} in {entries}");
        }
        mapping.set_topic_mapping("user.*", "persons").unwrap();
        mapping.set_topic_mapping("user.registered", "registered").unwrap();
        assert_eq!(topic(&mapping, "user.token_refreshed"), "persons");
        assert_eq!(
            (topic(&mapping, "user.registered"), topic(&mapping, "user.logged_in")),
            ("registered".into(), "logins".into())
        );
    }
}

#[test]
fn a_star_elsewhere_is_refused() {
    for pattern in ["*.created", "us*er", "user.**", "**"] {
        let error = TopicMapping::new().set_topic_mapping(pattern, "t").unwrap_err();
        assert_eq!(error.problems, [TopicMappingProblem::Pattern { event_type: pattern.into() }]);
        assert!(error.to_string().contains("user.*"), "{error}");
    }
}

#[test]
fn no_event_goes_to_dead_letters() {
    let mapping = TopicMapping::reserving("dead");
    assert_eq!(mapping.conflict(), None);
    for pattern in ["order.placed", "order.*", "*"] {
        let error = mapping.set_topic_mapping(pattern, "dead").unwrap_err();
        let expected = TopicMappingProblem::Reserved { event_type: pattern.into(), topic: "dead".into() };
        assert_eq!(error.problems, [expected]);
        assert!(error.to_string().contains("dlq_topic"), "{error}");
    }
    assert_eq!(topic(&mapping, "order.placed"), "default-events");
    assert_eq!(TopicMapping::reserving("default-events").conflict().as_deref(), Some("*"));
    let moved = TopicMapping::reserving("error-events");
    assert_eq!(moved.conflict().as_deref(), Some("api.error"));
    moved.set_topic_mapping("api.*", "calls").unwrap();
    assert_eq!(moved.conflict(), None);
}
