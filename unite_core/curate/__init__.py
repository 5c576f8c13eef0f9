"""From raw data sets to a training file: validate, filter, mix and describe records."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["ADAPTERS", "adapter", "require_columns"],
        "build": ["MixError", "build_mix"],
        "config": [
            "AlignConfig", "CleanConfig", "DuplicateThresholds", "InjectionConfig",
            "ProfileConfig", "RuleConfig",
        ],
        "dedupe": ["DuplicateGroups", "exact_duplicates", "leaks", "near_duplicates"],
        "fault_injection": ["InjectedData", "inject_faults", "measure_recovery"],
        "filter": ["FilterResult", "directed_pair_type", "filter_records"],
        "ingest": ["ingest_source", "iter_ingested"],
        "own_data": ["OwnData", "find_data", "own_items", "own_pairs"],
        "reasons": ["REASONS", "Reasons"],
        "recipe": ["Recipe", "Source", "read_recipe"],
        "split": ["SplitConfig", "split_pairs"],
        "validate": ["BadRowsError", "MediaCheck", "Report", "check_rows"],
    },
)  # fmt: skip
