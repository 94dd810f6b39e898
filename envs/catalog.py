"""The task families by name: where each class lives. Strings, so that listing them imports nothing."""

FAMILIES: dict[str, str] = {
    "bernoulli_bandit": "envs.bandits:BernoulliBandit",
    "gaussian_bandit": "envs.bandits:GaussianBandit",
    "tabular_mdp": "envs.tabular:TabularMDP",
    "grid_navi": "envs.gridworld:GridNavi",
    "point_navigation": "envs.navigation:PointNavigation",
    "semicircle": "envs.navigation:Semicircle",
    "wind": "envs.navigation:Wind",
    "half_cheetah_vel": "envs.locomotion.half_cheetah:HalfCheetahVel",
    "half_cheetah_dir": "envs.locomotion.half_cheetah:HalfCheetahDir",
    "half_cheetah_rand_params": "envs.locomotion.half_cheetah:HalfCheetahRandParams",
}
