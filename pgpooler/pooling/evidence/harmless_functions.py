"""Names that may stand before an opening parenthesis and leave nothing in the session.

The tables were made from `pg_proc` of PostgreSQL 15 and 18.  In: functions that are immutable or stable, without those
that only operators, indexes and types use, and volatile ones that were looked at one by one.  Out, whatever their
volatility: what runs SQL given as text (query_to_xml, ts_stat, ts_rewrite, ...) or loads a library, what
changes sequences or shows that the session has used one (lastval), and `log`: many applications have their own.

The limit: a name is no proof.  A user's function of the same name and other argument types, or one that a schema in
front of pg_catalog holds, or an operator, cast or domain of the user's below a harmless function, is not noticed.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[bytes]:
    return frozenset(text.encode().split())


UNCHANGING = _words("""
    abbrev abs acldefault aclexplode acos acosd acosh age area array_agg array_append array_cat array_dims array_fill
    array_larger array_length array_lower array_ndims array_position array_positions array_prepend array_remove
    array_replace array_to_json array_to_string array_to_tsvector array_upper ascii asin asind asinh atan atan2 atan2d
    atand atanh avg bit bit_and bit_count bit_length bit_or bit_xor bool bool_and bool_or box bpchar btrim cardinality
    cbrt ceil ceiling center char char_length character_length chr cidr circle col_description concat concat_ws convert
    convert_from convert_to corr cos cosd cosh cot cotd count covar_pop covar_samp cume_dist current_database
    current_schema current_schemas current_setting date date_bin date_part date_pl_interval date_trunc datemultirange
    daterange decode degrees dense_rank diagonal diameter div encode enum_first enum_last enum_range every exp extract
    factorial family first_value float4 float8 floor format format_type gcd generate_series generate_subscripts get_bit
    get_byte get_current_ts_config getdatabaseencoding has_any_column_privilege has_column_privilege
    has_database_privilege has_foreign_data_wrapper_privilege has_function_privilege has_language_privilege
    has_parameter_privilege has_schema_privilege has_sequence_privilege has_server_privilege has_table_privilege
    has_tablespace_privilege has_type_privilege hashint4 hashint8 hashtext hashtextextended height host hostmask
    inet_client_addr inet_client_port inet_merge inet_same_family inet_server_addr inet_server_port initcap int2 int4
    int4multirange int4range int8 int8multirange int8range interval is_normalized isclosed isempty isfinite ishorizontal
    isopen isparallel isperp isvertical json_agg json_array_elements json_array_elements_text json_array_length
    json_build_array json_build_object json_each json_each_text json_object json_object_agg json_object_keys
    json_populate_record json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_to_tsvector
    json_typeof jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_concat jsonb_contains jsonb_delete jsonb_delete_path jsonb_each jsonb_each_text
    jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match
    jsonb_path_match_tz jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first
    jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set
    jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_to_tsvector jsonb_typeof justify_days
    justify_hours justify_interval lag last_value lcm lead left length like line ln log10 lower lower_inc lower_inf lpad
    lseg ltrim macaddr macaddr8 make_date make_interval make_time make_timestamp make_timestamptz masklen max md5 min
    min_scale mod mode money multirange mxid_age name netmask network normalize now npoints nth_value ntile num_nonnulls
    num_nulls numeric nummultirange numnode numrange obj_description octet_length oid oidvectortypes overlaps overlay
    parse_ident path percent_rank percentile_cont percentile_disc pg_backend_pid pg_char_to_encoding pg_client_encoding
    pg_collation_for pg_collation_is_visible pg_column_compression pg_column_is_updatable pg_column_size
    pg_conf_load_time pg_conversion_is_visible pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned
    pg_describe_object pg_encoding_max_length pg_encoding_to_char pg_filenode_relation pg_function_is_visible
    pg_get_constraintdef pg_get_expr pg_get_function_arg_default pg_get_function_arguments
    pg_get_function_identity_arguments pg_get_function_result pg_get_function_sqlbody pg_get_functiondef pg_get_indexdef
    pg_get_keywords pg_get_object_address pg_get_partition_constraintdef pg_get_partkeydef pg_get_replica_identity_index
    pg_get_ruledef pg_get_serial_sequence pg_get_statisticsobjdef pg_get_statisticsobjdef_columns
    pg_get_statisticsobjdef_expressions pg_get_triggerdef pg_get_userbyid pg_get_viewdef pg_has_role pg_identify_object
    pg_identify_object_as_address pg_index_column_has_property pg_index_has_property pg_indexam_has_property
    pg_is_other_temp_schema pg_listening_channels pg_lsn pg_my_temp_schema pg_opclass_is_visible pg_operator_is_visible
    pg_opfamily_is_visible pg_partition_root pg_postmaster_start_time pg_relation_filenode pg_relation_filepath
    pg_relation_is_publishable pg_relation_is_updatable pg_sequence_parameters pg_settings_get_flags pg_size_bytes
    pg_size_pretty pg_snapshot_xip pg_snapshot_xmax pg_snapshot_xmin pg_statistics_obj_is_visible pg_table_is_visible
    pg_tablespace_databases pg_tablespace_location pg_timezone_names pg_trigger_depth pg_ts_config_is_visible
    pg_ts_dict_is_visible pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_typeof
    pg_visible_in_snapshot pg_wal_lsn_diff pg_walfile_name pg_walfile_name_offset phraseto_tsquery pi plainto_tsquery
    point polygon position pow power quote_ident quote_literal quote_nullable radians radius range_agg
    range_intersect_agg range_merge rank regclass regexp_count regexp_instr regexp_like regexp_match regexp_matches
    regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr regr_avgx regr_avgy regr_count
    regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse right round row_number
    row_security_active row_to_json rpad rtrim scale set_bit set_byte set_masklen setweight sha224 sha256 sha384 sha512
    shobj_description sign similar_to_escape sin sind sinh slope split_part sqrt starts_with statement_timestamp stddev
    stddev_pop stddev_samp string_agg string_to_array string_to_table strip strpos substr substring sum tan tand tanh
    text time timestamp timestamptz timetz timezone to_ascii to_char to_date to_hex to_json to_jsonb to_number
    to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole
    to_regtype to_timestamp to_tsquery to_tsvector transaction_timestamp translate trim_array trim_scale trunc ts_delete
    ts_filter ts_headline ts_match_vq ts_rank ts_rank_cd tsmultirange tsquery_and tsquery_phrase tsrange tstzmultirange
    tstzrange tsvector_concat tsvector_to_array txid_current txid_current_if_assigned txid_current_snapshot
    txid_snapshot_xip txid_snapshot_xmax txid_snapshot_xmin txid_visible_in_snapshot unistr unnest upper upper_inc
    upper_inf var_pop var_samp varbit varchar variance version websearch_to_tsquery width width_bucket xid xml
    xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlagg xmlcomment xmlexists xpath
    xpath_exists
""")
"""Immutable and stable functions that PostgreSQL 15 has as well as 18."""

VOLATILE = _words("""
    clock_timestamp current_query gen_random_uuid lo_close lo_creat lo_create lo_export lo_from_bytea lo_get lo_import
    lo_lseek lo_lseek64 lo_open lo_put lo_tell lo_tell64 lo_truncate lo_truncate64 lo_unlink loread lowrite
    pg_advisory_xact_lock pg_advisory_xact_lock_shared pg_blocking_pids pg_cancel_backend pg_create_restore_point
    pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_database_size pg_export_snapshot
    pg_indexes_size pg_is_in_recovery pg_is_wal_replay_paused pg_last_committed_xact pg_last_wal_receive_lsn
    pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status pg_logical_emit_message
    pg_notification_queue_usage pg_notify pg_partition_ancestors pg_partition_tree pg_relation_size pg_reload_conf
    pg_safe_snapshot_blocking_pids pg_sequence_last_value pg_sleep pg_sleep_for pg_sleep_until pg_stat_clear_snapshot
    pg_switch_wal pg_table_size pg_tablespace_size pg_terminate_backend pg_total_relation_size pg_try_advisory_xact_lock
    pg_try_advisory_xact_lock_shared pg_xact_commit_timestamp pg_xact_status random timeofday txid_status
""")
"""Volatile ones, which change something outside the session or only until the transaction ends."""

OLDER = _words("pg_timezone_abbrevs")
"""Functions that later versions call by other names."""

NEWER = {
    16: _words("""
        any_value array_sample array_shuffle date_add date_subtract erf erfc json_agg_strict json_object_agg_strict
        json_object_agg_unique json_object_agg_unique_strict jsonb_agg_strict jsonb_object_agg_strict
        jsonb_object_agg_unique jsonb_object_agg_unique_strict pg_input_error_info pg_input_is_valid
        pg_split_walfile_name random_normal
    """),
    17: _words("""
        icu_unicode_version jsonb_populate_record_valid pg_basetype pg_column_toast_chunk_id to_bin to_oct to_regtypemod
        unicode_assigned unicode_version uuid_extract_timestamp uuid_extract_version xmltext
    """),
    18: _words("""
        array_reverse array_sort bytea casefold crc32 crc32c gamma has_largeobject_privilege lgamma pg_get_acl uuidv4
        uuidv7
    """),
}
"""Functions that this version of PostgreSQL added; on an older server a user's function may have the name."""

NEWER_SYNTAX = _words(
    "json json_array json_arrayagg json_exists json_objectagg json_query"
    " json_scalar json_serialize json_table json_value merge_action"
)
"""What looks like a function but is syntax, from PostgreSQL 16 and 17 on; functions of the user's before."""

HARMLESS = UNCHANGING.union(VOLATILE, OLDER, NEWER_SYNTAX, *NEWER.values())

SYNTAX = _words("""
    all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create
    current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc
    distinct do else end except false fetch for foreign from grant group having in initially intersect into lateral
    leading limit localtime localtimestamp not null offset on only or order placing primary references returning select
    session_user some symmetric system_user table then to trailing true union unique user using variadic when where
    window with between bigint bit boolean char character coalesce dec decimal exists extract float greatest grouping
    inout int integer interval least national nchar none normalize nullif numeric out overlay position precision real
    row setof smallint substring time timestamp treat trim values varchar xmlattributes xmlconcat xmlelement xmlexists
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
""")
"""Reserved words, and those that cannot be names of functions (sql-keywords-appendix): no function can be meant."""
