CREATE TABLE audit_log (
    session_id VARCHAR(128) NOT NULL,
    seq INTEGER NOT NULL,
    timestamp VARCHAR(40) NOT NULL,
    call_id VARCHAR(256) NOT NULL,
    tool_name VARCHAR(64) NOT NULL,
    agent VARCHAR(64) NOT NULL,
    original_arguments JSON NOT NULL,
    decision VARCHAR(16) NOT NULL,
    modified_arguments JSON,
    feedback TEXT,
    decided_by VARCHAR(16) NOT NULL,
    rule VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    PRIMARY KEY (session_id, seq)
);

CREATE TABLE audit_results (
    session_id VARCHAR(128) NOT NULL,
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    timestamp VARCHAR(40) NOT NULL,
    result_hash VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    PRIMARY KEY (session_id, number)
);

CREATE TABLE grants (
    id VARCHAR(40) NOT NULL,
    session_id VARCHAR(128) NOT NULL,
    call_id VARCHAR(256) NOT NULL,
    agent VARCHAR(64) NOT NULL,
    tool_name VARCHAR(64) NOT NULL,
    pattern TEXT NOT NULL,
    is_exact BOOLEAN NOT NULL,
    cwd TEXT,
    shell BOOLEAN NOT NULL,
    scope VARCHAR(16) NOT NULL,
    uses_left INTEGER,
    expires_at VARCHAR(40),
    created_at VARCHAR(40) NOT NULL,
    ended_at VARCHAR(40),
    PRIMARY KEY (id)
);

CREATE INDEX grants_by_session ON grants (session_id, ended_at);

CREATE TABLE runs (
    id VARCHAR(40) NOT NULL,
    session_id VARCHAR(128) NOT NULL,
    "key" VARCHAR(400),
    body_hash VARCHAR(64) NOT NULL,
    input JSON NOT NULL,
    options JSON NOT NULL,
    pause JSON,
    status VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    events JSON,
    created_at VARCHAR(40) NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (session_id, "key")
);

CREATE INDEX runs_by_session ON runs (session_id, created_at);

CREATE INDEX runs_by_status ON runs (status);

CREATE TABLE sessions (
    id VARCHAR(128) NOT NULL,
    title TEXT NOT NULL,
    title_folded TEXT NOT NULL,
    description TEXT NOT NULL,
    agent VARCHAR(64) NOT NULL,
    message_count INTEGER NOT NULL,
    pause JSON,
    created_at VARCHAR(40) NOT NULL,
    last_activity VARCHAR(40) NOT NULL,
    deleted_at VARCHAR(40),
    PRIMARY KEY (id)
);

CREATE INDEX sessions_by_activity ON sessions (deleted_at, last_activity);

INSERT INTO sessions (id, title, title_folded, description, agent, message_count, created_at, last_activity)
    VALUES ('s-1', 'Straße', 'strasse', '', 'coder', 4, '2025-01-01T00:00:00+00:00', '2025-01-01T00:05:00+00:00');

INSERT INTO runs (id, session_id, "key", body_hash, input, options, status, attempts, events, created_at) VALUES
    ('run-b', 's-1', 'key-b', 'h', '{"type": "user_message"}', '{}', 'done', 1, '[]', '2025-01-01T00:01:00+00:00'),
    ('run-a', 's-1', NULL, 'h', '{"type": "user_message"}', '{}', 'running', 2, NULL, '2025-01-01T00:02:00+00:00'),
    ('run-c', 's-2', 'key-b', 'h', '{"type": "user_message"}', '{}', 'done', 1, '[]', '2025-01-01T00:00:00+00:00');

INSERT INTO audit_results VALUES ('s-1', 1, 1, '2025-01-01T00:01:00+00:00', 'r', 'h');
