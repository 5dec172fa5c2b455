"""The words of jq that a filter may have, and those that it may not."""

WORDS = frozenset(
    {
        *("add", "all", "and", "any", "arrays", "ascii_downcase", "ascii_upcase", "booleans", "capture", "contains"),
        *("elif", "else", "empty", "end", "endswith", "error", "explode", "false", "first", "flatten", "floor"),
        *(
            "from_entries",
            "fromjson",
            "group_by",
            "has",
            "if",
            "in",
            "inside",
            "isvalid",
            "iterables",
        ),
        *("join", "keys", "keys_unsorted", "last", "length", "ltrimstr", "map", "map_values", "max"),
        *("max_by", "min", "min_by", "not", "nth", "null", "nulls", "numbers", "objects", "or", "reverse"),
        *("round", "rtrimstr", "scalars", "select", "sort", "sort_by", "split", "startswith", "strings"),
        *("test", "then", "to_entries", "tojson", "tonumber", "tostring", "true", "type", "unique"),
        *("unique_by", "utf8bytelength", "values", "with_entries"),
    }
)
"""Functions that read no environment and no other file, and end after one pass over their input."""
DENIED = frozenset(
    {
        *("as", "catch", "combinations", "debug", "def", "delpaths", "env", "foreach", "fromstream", "get_search_list"),
        *(
            "getpath",
            "gsub",
            "halt",
            "halt_error",
            "implode",
            "import",
            "include",
            "index",
            "indices",
            "input",
            "input_filename",
            "inputs",
        ),
        *(
            "label",
            "limit",
            "ltrimstr",
            "modulemeta",
            "range",
            "recurse",
            "recurse_down",
            "reduce",
            "repeat",
            "rindex",
            "scan",
        ),
        *(
            "leaf_paths",
            "paths",
            "setpath",
            "transpose",
            "splits",
            "stderr",
            "sub",
            "tostream",
            "truncate_stream",
            "try",
            "until",
            "walk",
            "while",
        ),
    }
)
"""Words that read the environment or other files, need not end, or have no bound."""

EXPANSIONS = {
    **dict.fromkeys(["tojson", "tostring", "@json", "@text", "@html", "@uri", "to_entries", "with_entries"], 6),
    **dict.fromkeys(["explode", "@sh"], 8),
    **dict.fromkeys(["group_by", "split", "@csv", "@tsv", "@base64", "keys", "keys_unsorted", "map_values"], 2),
}
"""The factor by which a word may lengthen its input: `tojson` writes a control character as six, for example."""
LITERAL_ARGUMENT = frozenset({"capture", "contains", "inside", "join", "split", "test"})
"""Functions whose argument must be a text without `\\(`: a pattern from data could take any time."""
DECODERS = frozenset({"fromjson", "@base64d"})
"""Words that could make control characters of a text in the filter."""
LEAVES = frozenset({"scalars", "strings", "numbers", "booleans", "nulls"})
"""The only words that may follow `.. |`: the other values hold each other, so that their size is squared."""
