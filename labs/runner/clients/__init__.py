"""How the platform is asked: as the student through the gateway (session, jupyter, pipelines), with the student's key
(bucket), as the operator (cluster, mlmd)."""
