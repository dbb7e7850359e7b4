//! Where the layer is put: nested, merged, around a fallback, twice, for two stores; and around other bodies.

use axum::Router;
use axum::body::Bytes;
use axum::http::Request as HttpRequest;
use axum::routing::{get, post};
use dwell::axum::{SessionLayer, exchange_of};
use dwell::{ManualClock, Session};
use http_body_util::{BodyExt, Empty, Full};
use tower::ServiceExt;
use tower_layer::Layer;

use super::layer::{COUNT, cookies, count, http, send, text};
use super::*;

#[tokio::test]
async fn nested_merged_and_fallback_routes_are_covered() {
    let inner = Router::new().route("/count", get(count));
    let other = Router::new().route("/other", get(count));
    let app = Router::new().nest("/app", inner).merge(other).fallback(count);
    let app = app.layer(SessionLayer::development(sessions()));
    let first = send(&app, http("GET", "/app/count", &[])).await;
    let cookie = cookies(&first).remove(0);
    let lines = [("Cookie", &*cookie)];
    assert_eq!(text(send(&app, http("GET", "/other", &lines)).await).await, "2");
    assert_eq!(text(send(&app, http("GET", "/nowhere", &lines)).await).await, "3");
    assert_eq!(send(&app, http("GET", "/nowhere", &[("Host", "evil.example")])).await.status(), 400);
}

#[tokio::test]
async fn a_layered_sub_router_covers_itself_only() {
    let inside = Router::new().route("/count", get(count)).layer(SessionLayer::development(sessions()));
    let app = Router::new().nest("/in", inside).route("/out", get(count)).route("/plain", get(|| async { "plain" }));
    assert_eq!(send(&app, http("GET", "/in/count", &[])).await.status(), 200);
    let outside = send(&app, http("GET", "/out", &[])).await;
    assert_eq!(outside.status(), 500);
    assert!(text(outside).await.contains("not covered by a session layer"));
    assert_eq!(text(send(&app, http("GET", "/plain", &[])).await).await, "plain");
}

#[tokio::test]
async fn the_same_store_twice_is_one_layer() {
    let sessions = sessions();
    let inside = Router::new().route("/count", get(count)).layer(SessionLayer::development(sessions.clone()));
    let app = Router::new().nest("/in", inside).layer(SessionLayer::development(sessions.clone()));
    let first = send(&app, http("GET", "/in/count", &[])).await;
    let cookie = cookies(&first);
    assert_eq!(cookie.len(), 1);
    assert_eq!(text(send(&app, http("GET", "/in/count", &[("Cookie", &cookie[0])])).await).await, "2");
    assert_eq!(sessions.stats().sessions, 1);
}

/// A session in a store whose time stands still, and its cookie.
fn timed() -> (ManualClock, Site, String) {
    let clock = ManualClock::new();
    let site = Site::development(Options::new().clock(clock.clone()).in_memory().unwrap());
    let cookie = signed_in(&site, "ada");
    (clock, site, cookie)
}

const MINUTES_10: std::time::Duration = std::time::Duration::from_secs(600);

#[tokio::test]
async fn polling_a_passive_route_keeps_no_session_alive_and_other_routes_do() {
    let (clock, site, cookie) = timed();
    let layer = SessionLayer::new(site);
    let who = || get(|user: dwell::axum::SignedIn| async move { user.principal().to_owned() });
    let used = Router::new().route("/used", who()).layer(layer.clone());
    let app = used.merge(Router::new().route("/polled", who()).layer(layer.passive()));
    let status = async |path| send(&app, http("GET", path, &[("Cookie", &cookie)])).await.status().as_u16();
    for path in ["/used", "/polled", "/used", "/polled", "/used"] {
        clock.advance(MINUTES_10);
        assert_eq!(status(path).await, 200, "thirty minutes are the limit");
    }
    for expected in [200, 200, 401] {
        clock.advance(MINUTES_10);
        assert_eq!(status("/polled").await, expected);
    }
    assert_eq!(status("/used").await, 401);
}

#[tokio::test]
async fn pages_of_others_open_no_stream_whatever_they_say_they_accept() {
    let (_, site, cookie) = timed();
    let layer = SessionLayer::new(site);
    let who = || get(|user: dwell::axum::SignedIn| async move { user.principal().to_owned() });
    let page = Router::new().route("/page", who()).layer(layer.clone());
    let app = page.merge(Router::new().route("/news", who()).layer(layer.clone().streams()));
    let status = async |app: &Router, path, more: &[(&str, &str)]| {
        let lines: Vec<_> = [("Cookie", &*cookie)].into_iter().chain(more.iter().copied()).collect();
        send(app, http("GET", path, &lines)).await.status().as_u16()
    };
    for foreign in [("Origin", "http://evil.example"), ("Origin", "null"), ("Sec-Fetch-Site", "same-site")] {
        assert_eq!(status(&app, "/page", &[foreign]).await, 200, "a page may be linked to");
        assert_eq!(status(&app, "/page", &[foreign, ("Accept", "text/event-stream")]).await, 403);
        for accept in ["text/event-stream", "*/*", "text/html", ""] {
            assert_eq!(status(&app, "/news", &[foreign, ("Accept", accept)]).await, 403, "{foreign:?} {accept}");
        }
        assert_eq!(status(&app, "/news", &[foreign]).await, 403);
    }
    assert_eq!(status(&app, "/news", &[("Accept", "*/*")]).await, 200, "what says nothing is no page of others");
    let late = Router::new().route("/news", who()).layer(layer.clone().streams()).layer(layer);
    let answer = send(&late, http("GET", "/news", &[("Cookie", &cookie), ("Origin", "http://evil.example")])).await;
    assert_eq!(answer.status(), 500);
    assert!(text(answer).await.contains("comes too late"));
}

/// Calls from other programs, and what they must not be taken for.
#[tokio::test]
async fn a_bypassed_path_has_no_session_and_is_that_path_alone() {
    let site = Site::development(sessions());
    let layer = SessionLayer::new(site.clone()).bypass("/hook").unwrap();
    let called = || axum::routing::any(|| async { "called" });
    let app = Router::new()
        .route("/hook", called())
        .route("/hook/", called())
        .route("/{*rest}", called())
        .route("/session", axum::routing::any(count))
        .layer(layer);
    let status = async |path: &str, lines: Lines<'_>| send(&app, http("POST", path, lines)).await.status().as_u16();
    let cookie = signed_in(&site, "ada");
    let foreign = [("Cookie", &*cookie), ("Origin", "https://payments.example"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(status("/hook", &foreign).await, 200);
    assert_eq!(status("/hook?to=1", &foreign).await, 200, "a query is not the path");
    for other in ["/hook/", "//hook", "/Hook", "/h%6Fok", "/hook%2F", "/a/../hook", "/hook;x=1", "/hooks", "/ho"] {
        assert_eq!(status(other, &foreign).await, 403, "{other}");
    }
    let answer = send(&app, http("POST", "/hook", &[("Host", "evil.example")])).await;
    assert_eq!(answer.status(), 400, "two hosts");
    let site = Site::development(sessions());
    let cookie = signed_in(&site, "ada");
    let app =
        Router::new().route("/hook", axum::routing::any(count)).layer(SessionLayer::new(site).bypass("/hook").unwrap());
    let answer = send(&app, http("POST", "/hook", &[("Cookie", &cookie)])).await;
    assert_eq!(answer.status(), 500, "there is no session to be had");
    assert!(cookies(&answer).is_empty());
    for bad in ["", "hook", "/hook*", "/{hook}", "/hook?x", "/hook#x", "/hök"] {
        assert!(SessionLayer::development(sessions()).bypass(bad).is_err(), "{bad}");
    }
}

/// An application that is one of several on its host, each below a path of its own: in the same program, or behind a proxy
/// that takes the path off or leaves it on.
#[tokio::test]
async fn below_a_path_sessions_sign_in_pages_and_bypassed_paths_are_where_they_should_be() {
    let private = get(|user: dwell::axum::SignedIn| async move { user.principal().to_owned() });
    let routes = Router::new().route("/count", axum::routing::any(count)).route("/private", private);
    let routes = routes.route("/hook", axum::routing::any(|| async { "called" }));
    // Browsers see the whole path, wherever the layer stands; the layer sees what is left of it.
    let layer = || SessionLayer::development(sessions()).sign_in_page("/app/sign-in");
    let inside = routes.clone().layer(layer().bypass("/hook").unwrap());
    let around = Router::new().nest("/app", routes).layer(layer().bypass("/app/hook").unwrap());
    let ways = [
        ("nested", Router::new().nest("/app", inside.clone()), "/app"),
        ("as a service", Router::new().nest_service("/app", inside.clone()), "/app"),
        ("layer around", around, "/app"),
        ("path taken off", inside, ""),
    ];
    for (way, app, path) in ways {
        let at = |rest: &str| format!("{path}{rest}");
        let first = send(&app, http("GET", &at("/count"), &[])).await;
        let cookie = cookies(&first).remove(0);
        assert!(first.headers()["set-cookie"].to_str().unwrap().contains("; Path=/;"), "{way}: {cookie}");
        let lines = [("Cookie", &*cookie), ("Accept", "text/html")];
        assert_eq!(text(send(&app, http("GET", &at("/count"), &lines)).await).await, "2", "{way}");
        let sent = send(&app, http("GET", &at("/private"), &lines)).await;
        assert_eq!(sent.status(), 303, "{way}");
        assert_eq!(sent.headers()["location"], "/app/sign-in", "{way}");
        let foreign = [("Cookie", &*cookie), ("Origin", "https://payments.example")];
        let post = async |path: &str| send(&app, http("POST", path, &foreign)).await.status().as_u16();
        assert_eq!(post(&at("/hook")).await, 200, "{way}");
        assert_eq!(post(&at("/count")).await, 403, "{way}");
        for other in ["/app/hook", "/hook/", "/h%6Fok", "/count/../hook", "/hook/app"].map(at) {
            assert!([403, 404].contains(&post(&other).await), "{way}: {other}");
        }
    }
}

/// Their cookies go to the whole host, so each has a name of its own.
#[tokio::test]
async fn two_applications_below_two_paths_of_one_host_leave_each_other_alone() {
    let app = |name| {
        let site = Site::https(sessions(), HOST).unwrap().named(name).unwrap();
        (site.clone(), Router::new().route("/count", axum::routing::any(count)).layer(SessionLayer::new(site)))
    };
    let ((one, one_app), (two, two_app)) = (app("one"), app("two"));
    let both = Router::new().nest("/one", one_app).nest("/two", two_app);
    let jar = format!("{}; {}", signed_in(&one, "ada"), signed_in(&two, "eve"));
    for path in ["/one/count", "/two/count", "/one/count"] {
        let answer = send(&both, http("GET", path, &[("Cookie", &jar)])).await;
        assert_eq!(answer.status(), 200);
        assert!(cookies(&answer).is_empty(), "{path} has its session");
    }
    let who = |site: &Site| Some(open(site, "GET", &[("Cookie", &jar)]).session()?.principal().unwrap()?.to_string());
    assert_eq!((who(&one).as_deref(), who(&two).as_deref()), (Some("ada"), Some("eve")));
    open(&one, "GET", &[("Cookie", &jar)]).session().unwrap().destroy().unwrap().blocking_wait().unwrap();
    assert_eq!((who(&one), who(&two).as_deref()), (None, Some("eve")));
}

#[tokio::test]
async fn of_nested_layers_the_outer_says_what_counts_and_a_passive_one_is_not_quietly_ignored() {
    let (clock, site, cookie) = timed();
    let layer = SessionLayer::new(site.clone());
    let polls = layer.clone().passive_if(|headers| headers.contains_key("x-poll"));
    let app = |inner: &SessionLayer, outer: &SessionLayer| {
        Router::new().route("/", get(|| async { "asked" })).layer(inner.clone()).layer(outer.clone())
    };
    let left = || {
        let asked = site.admit(&request("GET", &[("Cookie", &cookie)]).passive()).unwrap().open().unwrap();
        asked.session().unwrap().idle_left().unwrap().unwrap()
    };
    let status = async |app: Router, more: Lines<'_>| {
        let lines: Vec<_> = [("Cookie", &*cookie)].into_iter().chain(more.iter().copied()).collect();
        send(&app, http("GET", "/", &lines)).await.status().as_u16()
    };
    clock.advance(MINUTES_10);
    let before = left();
    let passive = layer.clone().passive();
    assert_eq!(status(app(&layer, &passive), &[]).await, 200);
    assert_eq!(status(app(&passive, &passive), &[]).await, 200);
    assert_eq!(status(app(&passive, &polls), &[("X-Poll", "1")]).await, 200);
    assert_eq!(left(), before, "the outer one is passive");
    for (outer, lines) in [(&layer, &[][..]), (&layer, &[("X-Poll", "1")]), (&polls, &[])] {
        assert_eq!(status(app(&passive, outer), lines).await, 500);
    }
    assert_eq!(status(app(&polls, &layer), &[]).await, 200);
    assert_eq!(left(), 3 * MINUTES_10);
    let clash = send(&app(&polls, &layer), http("GET", "/", &[("X-Poll", "1")])).await;
    assert!(text(clash).await.contains("comes too late"));
}

#[tokio::test]
async fn an_inner_layer_that_checks_other_things_than_the_outer_is_not_quietly_ignored() {
    let store = sessions();
    let site = || Site::development(store.clone());
    let app = |inner: Site, outer: Site| {
        let inside = Router::new().route("/count", post(count)).layer(SessionLayer::new(inner));
        Router::new().nest("/in", inside).layer(SessionLayer::new(outer))
    };
    let status = async |inner, outer| {
        let answer = send(&app(inner, outer), http("POST", "/in/count", &[("Origin", "http://evil.example")])).await;
        answer.status().as_u16()
    };
    assert_eq!(status(site(), site()).await, 403, "made twice, and the same");
    for other in [
        site().dangerous().log_only(),
        site().by_header(),
        site().dangerous().by_address(),
        site().trust_origin("http://evil.example").unwrap(),
        site().allow_host("notes.localhost").unwrap(),
        site().cookie_named("notes").unwrap(),
        site().named("notes").unwrap(),
        Site::localhost(store.clone()),
    ] {
        // The outer one refuses the request, or the inner one cannot be asked.
        let (inside, outside) = (status(other.clone(), site()).await, status(site(), other).await);
        assert!(inside == 403 && [403, 500].contains(&outside), "{inside} {outside}");
    }
    assert_eq!(store.stats().sessions, 0);
    let lax = app(site(), site().dangerous().log_only());
    let answer = send(&lax, http("POST", "/in/count", &[("Origin", "http://evil.example")])).await;
    assert_eq!(answer.status(), 500);
    assert!(text(answer).await.contains("comes too late"));
}

#[tokio::test]
async fn two_stores_side_by_side_do_not_mix() {
    let (one, two) = (sessions(), sessions());
    let part = |sessions: &Sessions| {
        Router::new().route("/count", get(count)).layer(SessionLayer::development(sessions.clone()))
    };
    let app = Router::new().nest("/one", part(&one)).nest("/two", part(&two));
    let cookie = cookies(&send(&app, http("GET", "/one/count", &[])).await).remove(0);
    let lines = [("Cookie", &*cookie)];
    assert_eq!(text(send(&app, http("GET", "/one/count", &lines)).await).await, "2");
    assert_eq!(text(send(&app, http("GET", "/two/count", &lines)).await).await, "1");
    assert_eq!((one.stats().sessions, two.stats().sessions), (1, 1));
}

#[tokio::test]
async fn of_two_stores_around_a_route_the_inner_is_the_handlers() {
    let (inner, outer) = (sessions(), sessions());
    let reach = {
        let outer = outer.clone();
        move |session: Session, request: axum::extract::Request| async move {
            let around = exchange_of(request.extensions(), &outer).unwrap();
            around.session_or_new().unwrap().set(COUNT, &10)?;
            session.set(COUNT, &20)
        }
    };
    let app = Router::new()
        .route("/", get(reach))
        .layer(SessionLayer::development(inner.clone()))
        .layer(SessionLayer::development(outer.clone()));
    let response = send(&app, http("GET", "/", &[])).await;
    assert_eq!(response.status(), 200);
    let set = cookies(&response);
    assert_eq!(set.len(), 2, "each store its own");
    for (store, expected) in [(&inner, 20), (&outer, 10)] {
        let exchange = open(&Site::development(store.clone()), "GET", &[("Cookie", &set.join("; "))]);
        assert_eq!(exchange.session().unwrap().get(COUNT).unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn two_stores_under_one_cookie_name_are_refused() {
    let https = |name: Option<&str>| {
        let site = Site::https(sessions(), HOST).unwrap();
        SessionLayer::new(match name {
            Some(name) => site.named(name).unwrap(),
            None => site,
        })
    };
    let app = |inner| Router::new().route("/", get(count)).layer(inner).layer(https(None));
    let clash = send(&app(https(None)), http("GET", "/", &[])).await;
    assert_eq!(clash.status(), 500);
    assert!(text(clash).await.contains("name of its own"));
    let named = send(&app(https(Some("admin"))), http("GET", "/", &[])).await;
    assert!(cookies(&named)[0].starts_with("__Host-Http-id-admin="));
}

#[tokio::test]
async fn any_body_goes_in_and_out() {
    let inner = tower::service_fn(|request: HttpRequest<axum::body::Body>| async move {
        let session_was_there = exchange_of(request.extensions(), &SESSIONS.with(Clone::clone)).is_some();
        assert!(session_was_there);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok::<_, std::convert::Infallible>(axum::http::Response::new(Full::new(body)))
    });
    let service = SessionLayer::development(SESSIONS.with(Clone::clone)).layer(inner);
    let request = |method| HttpRequest::builder().method(method).uri("/").header("Host", HOST);
    let full = request("GET").body(Full::new(Bytes::from("abc"))).unwrap();
    let answer = service.clone().oneshot(full).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "abc");
    let empty = request("GET").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(service.oneshot(empty).await.unwrap().status(), 200);
}

thread_local! {
    static SESSIONS: Sessions = sessions();
}
