"""Supervised families and learners by name. Strings, so that listing them imports nothing."""

FAMILIES: dict[str, str] = {
    "sinusoid": "metarl.fewshot.regression:Sinusoid",
    "harmonic": "metarl.fewshot.regression:Harmonic",
    "omniglot": "metarl.fewshot.images.omniglot:Omniglot",
    "mini_imagenet": "metarl.fewshot.images.photos:MiniImageNet",
    "tiered_imagenet": "metarl.fewshot.images.photos:TieredImageNet",
    "cifar_fs": "metarl.fewshot.images.photos:CIFARFS",
    "fc100": "metarl.fewshot.images.photos:FC100",
    "image_folder": "metarl.fewshot.images.photos:ImageFolder",
}

LEARNERS: dict[str, str] = {
    "maml": "metarl.fewshot.learners:MAMLConfig",
    "fomaml": "metarl.fewshot.learners:FOMAMLConfig",
    "reptile": "metarl.fewshot.reptile:ReptileConfig",
    "meta_sgd": "metarl.fewshot.learners:MetaSGDConfig",
    "maml_plus_plus": "metarl.fewshot.learners:MAMLPlusPlusConfig",
    "anil": "metarl.fewshot.learners:ANILConfig",
    "imaml": "metarl.fewshot.learners:IMAMLConfig",
    "t_net": "metarl.fewshot.t_net:TNetConfig",
    "reptile_lora": "metarl.fewshot.lora:ReptileLoRAConfig",
    "meta_networks": "metarl.fewshot.meta_networks:MetaNetworkConfig",
    "meta_learner_lstm": "metarl.fewshot.meta_learner_lstm:MetaLearnerLSTMConfig",
    "learned_optimizer": "metarl.fewshot.learned_optimizer:LearnedOptimizerConfig",
    "cnp": "metarl.fewshot.neural_processes:CNPConfig",
    "np": "metarl.fewshot.neural_processes:NPConfig",
    "prototypical": "metarl.fewshot.metric_learners:PrototypicalConfig",
    "matching": "metarl.fewshot.metric_learners:MatchingConfig",
    "relation": "metarl.fewshot.metric_learners:RelationConfig",
    "siamese": "metarl.fewshot.metric_learners:SiameseConfig",
    "meta_opt_net": "metarl.fewshot.metric_learners:MetaOptNetConfig",
    "snail": "metarl.fewshot.sequence_learners:SnailLearnerConfig",
    "transformer": "metarl.fewshot.sequence_learners:TransformerLearnerConfig",
    "mann": "metarl.fewshot.sequence_learners:MANNConfig",
    "lstm": "metarl.fewshot.sequence_learners:LSTMConfig",
}
