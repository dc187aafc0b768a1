use boxoffice_model::explore::explore;
use boxoffice_model::scenario::{Model, Scenario};
#[test] fn probe() {
    let which = std::env::var("S").unwrap_or_default();
    for scenario in [Scenario::holds(), Scenario::takeover(), Scenario::lost_disk(), Scenario::lost_tail(), Scenario::fail_over()] {
        if !which.is_empty() && which != scenario.name { continue; }
        let v = explore(&Model::new(scenario.clone()));
        println!("{}: {} states, depth {}, {:?} impossible {:?}", scenario.name, v.states, v.depth, v.elapsed, v.impossible);
        for (n, way) in v.broken { println!("BROKEN {n}\n  {way}"); }
    }
}
