CREATE TABLE entry (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), name text NOT NULL, text text NOT NULL)
