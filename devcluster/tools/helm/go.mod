module pilothouse/tools/helm

go 1.26

require helm.sh/helm/v3 v3.19.2
