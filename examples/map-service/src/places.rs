//! Places, and who is near: a box of degrees finds candidates by an index, the haversine formula measures them.

use crate::identity::user;
use crate::{App, rooms};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use example_kit::db::{self, Db, DbError};
use example_kit::web::{Problem, json_answer};
use example_kit::{now_ms, params};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

const EARTH_M: f64 = 6_371_009.0;
const RADIUS_M_MAX: f64 = 50_000.0;
const FOUND_MAX: usize = 100;
/// Somebody is near who said so within an hour.
const LOCATION_MS: i64 = 3_600_000;

/// Coffee houses of Vienna, coordinates rounded to some ten metres.
const CAFES: &[(&str, f64, f64)] = &[
    ("Café Central", 48.2104, 16.3655),
    ("Café Sacher", 48.2038, 16.3694),
    ("Café Hawelka", 48.2080, 16.3694),
    ("Café Landtmann", 48.2117, 16.3614),
    ("Demel", 48.2086, 16.3672),
    ("Café Prückel", 48.2078, 16.3811),
    ("Café Sperl", 48.1997, 16.3618),
    ("Café Museum", 48.2011, 16.3677),
    ("Café Schwarzenberg", 48.2031, 16.3745),
    ("Café Frauenhuber", 48.2059, 16.3735),
    ("Café Diglas", 48.2089, 16.3757),
    ("Café Korb", 48.2108, 16.3703),
    ("Café Bräunerhof", 48.2073, 16.3678),
    ("Café Tirolerhof", 48.2050, 16.3686),
    ("Café Mozart", 48.2043, 16.3695),
    ("Café Ritter", 48.1975, 16.3524),
    ("Café Rüdigerhof", 48.1958, 16.3606),
    ("Café Eiles", 48.2106, 16.3530),
    ("Café Goldegg", 48.1886, 16.3761),
    ("Café Weidinger", 48.2101, 16.3366),
    ("Café Jelinek", 48.1955, 16.3490),
    ("Café Kafka", 48.1990, 16.3558),
    ("Kleines Café", 48.2062, 16.3754),
    ("Café Engländer", 48.2084, 16.3795),
    ("Alt Wien", 48.2094, 16.3764),
    ("Café Hummel", 48.2108, 16.3470),
    ("Café Weimar", 48.2201, 16.3560),
    ("Café Stein", 48.2149, 16.3597),
    ("Café Westend", 48.1967, 16.3393),
    ("Café am Heumarkt", 48.2022, 16.3791),
];

/// Puts the places in, once: the id follows from the name.
pub async fn seed(db: &Db) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    for (name, lat, lon) in CAFES {
        let id = Uuid::from_u128(fnv(name)).to_string();
        let add = "INSERT INTO places (id, name, lat, lon) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING";
        tx.query(add, params![id, *name, *lat, *lon]).await?;
    }
    tx.commit().await
}

/// FNV-1a, 128 bits.
fn fnv(text: &str) -> u128 {
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
        })
}

/// Where to look, degrees and metres.
#[derive(Deserialize, Clone, Copy)]
pub struct Near {
    lat: f64,
    lon: f64,
    radius_m: Option<f64>,
}

/// Degrees that hold everything within the radius, and more in the corners.
#[derive(PartialEq, Debug)]
struct Bounds {
    lat: (f64, f64),
    lon: (f64, f64),
}

impl Near {
    fn valid(self) -> Result<Near, Problem> {
        let is_place = self.lat.abs() <= 90.0 && self.lon.abs() <= 180.0;
        let fits = self
            .radius_m
            .is_none_or(|radius| (0.0..=RADIUS_M_MAX).contains(&radius));
        (is_place && fits)
            .then_some(self)
            .ok_or_else(|| Problem::bad("no place of the earth, or too far around it"))
    }

    fn radius(self) -> f64 {
        self.radius_m.unwrap_or(2_000.0)
    }

    fn bounds(self) -> Bounds {
        let lat = (self.radius() / EARTH_M).to_degrees();
        // A circle is widest, in degrees of longitude, on its side towards the pole. Around a pole it is every longitude.
        let narrowest = (self.lat.abs() + lat).to_radians().cos();
        let lon = if self.lat.abs() + lat >= 90.0 {
            360.0
        } else {
            lat / narrowest
        };
        Bounds {
            lat: (self.lat - lat, self.lat + lat),
            lon: (self.lon - lon, self.lon + lon),
        }
    }

    /// Metres to there on the sphere.
    fn distance(self, lat: f64, lon: f64) -> f64 {
        let (a, b) = (self.lat.to_radians(), lat.to_radians());
        let (half_lat, half_lon) = ((b - a) / 2.0, (lon - self.lon).to_radians() / 2.0);
        let h = half_lat.sin().powi(2) + a.cos() * b.cos() * half_lon.sin().powi(2);
        2.0 * EARTH_M * h.sqrt().min(1.0).asin()
    }
}

/// What is in the box, as (id, name, lat, lon, m), the nearest first. The date line, which is far from Vienna, is not crossed.
async fn within(
    app: &crate::Shared,
    near: Near,
    sql: &str,
    since: Option<i64>,
) -> Result<Vec<(String, String, f64, f64, f64)>, Problem> {
    let Bounds { lat, lon } = near.bounds();
    let mut params = params![lat.0, lat.1, lon.0, lon.1].to_vec();
    params.extend(since.map(db::Value::from));
    let rows = app.db.query(sql, &params).await?;
    let mut found = Vec::new();
    for row in rows {
        let (lat, lon) = (row.real(2)?, row.real(3)?);
        let distance = near.distance(lat, lon);
        if distance <= near.radius() {
            found.push((row.text(0)?, row.text(1)?, lat, lon, distance));
        }
    }
    found.sort_by(|one, other| one.4.total_cmp(&other.4));
    found.truncate(FOUND_MAX);
    Ok(found)
}

/// `GET /v1/places?lat=&lon=&radius_m=`: cafés nearby, the nearest first, with one's favourites marked.
pub async fn nearby(
    State(app): App,
    headers: HeaderMap,
    Query(near): Query<Near>,
) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let sql = "SELECT id, name, lat, lon FROM places WHERE lat BETWEEN $1 AND $2 AND lon BETWEEN $3 AND $4";
    let found = within(&app, near.valid()?, sql, None).await?;
    let favorites = "SELECT place_id FROM favorite_places WHERE user_id = $1";
    let favorites = app.db.query(favorites, params![&own.id]).await?;
    let favorites: BTreeSet<String> = favorites
        .iter()
        .map(|row| row.text(0))
        .collect::<Result<_, _>>()?;
    let places: Vec<Value> = found
        .into_iter()
        .map(|(id, name, lat, lon, m)| {
            let favorite = favorites.contains(&id);
            json!({"place_id": id, "name": name, "lat": lat, "lon": lon, "distance_m": m.round(), "favorite": favorite})
        })
        .collect();
    Ok(json_answer(&json!({"places": places})))
}

/// `GET /v1/people?lat=&lon=&radius_m=`: who is near, by name and to a hundred metres: where exactly is nobody's business. With
/// `room_id`, where one writes to them, if there is such a room.
pub async fn people(
    State(app): App,
    headers: HeaderMap,
    Query(near): Query<Near>,
) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let sql = "SELECT p.user_id, p.name, l.lat, l.lon FROM user_locations l JOIN people p ON p.user_id = l.user_id \
               WHERE l.lat BETWEEN $1 AND $2 AND l.lon BETWEEN $3 AND $4 AND l.updated_at > $5";
    let found = within(&app, near.valid()?, sql, Some(now_ms() - LOCATION_MS)).await?;
    let rooms = rooms::with(&app.db, &own.id).await?;
    let people: Vec<Value> = found
        .into_iter()
        .filter(|(id, ..)| *id != own.id)
        .map(|(id, name, _, _, m)| json!({"user_id": id, "name": name, "distance_m": (m / 100.0).ceil() * 100.0, "room_id": rooms.get(&id)}))
        .collect();
    Ok(json_answer(&json!({"people": people})))
}

/// `PUT /v1/me/location {"lat","lon"}`.
pub async fn here(
    State(app): App,
    headers: HeaderMap,
    Json(near): Json<Near>,
) -> Result<Response, Problem> {
    let (own, near) = (user(&app, &headers).await?, near.valid()?);
    let put = "INSERT INTO user_locations (user_id, lat, lon, updated_at) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (user_id) DO UPDATE SET lat = excluded.lat, lon = excluded.lon, updated_at = excluded.updated_at";
    app.db
        .query(put, params![&own.id, near.lat, near.lon, now_ms()])
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `PUT /v1/me/favorites/{place_id}`.
pub async fn favorite(
    State(app): App,
    headers: HeaderMap,
    Path(place): Path<String>,
) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let add = "INSERT INTO favorite_places (user_id, place_id) SELECT $1, id FROM places WHERE id = $2 \
               ON CONFLICT DO NOTHING";
    app.db.query(add, params![&own.id, &place]).await?;
    let there = "SELECT 1 FROM favorite_places WHERE user_id = $1 AND place_id = $2";
    if app
        .db
        .query(there, params![&own.id, place])
        .await?
        .is_empty()
    {
        return Err(Problem::not_found("no such place"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /v1/me/favorites/{place_id}`.
pub async fn no_favorite(
    State(app): App,
    headers: HeaderMap,
    Path(place): Path<String>,
) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let take = "DELETE FROM favorite_places WHERE user_id = $1 AND place_id = $2";
    app.db.query(take, params![&own.id, place]).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(lat: f64, lon: f64, radius_m: f64) -> Near {
        Near {
            lat,
            lon,
            radius_m: Some(radius_m),
        }
    }

    #[test]
    fn distances_are_those_of_the_sphere() {
        // Vienna to Graz, and a degree along the equator.
        assert!((near(48.2082, 16.3738, 0.0).distance(47.0707, 15.4395) - 144_900.0).abs() < 500.0);
        assert!((near(0.0, 0.0, 0.0).distance(0.0, 1.0) - 111_195.0).abs() < 10.0);
        assert!(near(48.2, 16.3, 0.0).distance(48.2, 16.3).abs() < f64::EPSILON);
    }

    #[test]
    fn the_box_holds_the_whole_circle_and_little_more() {
        for (lat, radius) in [
            (0.0, 1_000.0),
            (48.2, 2_000.0),
            (-70.0, 50_000.0),
            (89.0, 20_000.0),
        ] {
            let here = near(lat, 10.0, radius);
            let bounds = here.bounds();
            for step in 0..360 {
                // A point of the circle, by the direct formula of the sphere.
                let (angle, d) = (f64::from(step).to_radians(), radius / EARTH_M);
                let from = lat.to_radians();
                let at = (from.sin() * d.cos() + from.cos() * d.sin() * angle.cos()).asin();
                let by =
                    (angle.sin() * d.sin() * from.cos()).atan2(d.cos() - from.sin() * at.sin());
                let (at, by) = (at.to_degrees(), 10.0 + by.to_degrees());
                assert!((here.distance(at, by) - radius).abs() < 1.0);
                let slack = 1e-9;
                assert!(
                    bounds.lat.0 - slack <= at && at <= bounds.lat.1 + slack,
                    "{lat} {step}"
                );
                assert!(
                    bounds.lon.0 - slack <= by && by <= bounds.lon.1 + slack,
                    "{lat} {step}"
                );
            }
            assert!(bounds.lat.1 - bounds.lat.0 < 2.1 * (radius / EARTH_M).to_degrees());
        }
        assert!((near(89.99, 0.0, 50_000.0).bounds().lon.1 - 360.0).abs() < f64::EPSILON);
    }

    #[test]
    fn no_two_places_have_one_id() {
        let ids: BTreeSet<u128> = CAFES.iter().map(|(name, ..)| fnv(name)).collect();
        assert_eq!(ids.len(), CAFES.len());
    }
}
